"""A small client of the Kubernetes API: manifests as plain dicts, errors of this project, retries during an outage.

The generated client has one method per kind; plans, drift and deploys handle whatever kinds the charts render.
So this module takes connection, TLS and credentials from the `kubernetes` package and speaks REST itself:
aggregated discovery to find a kind's path, server-side apply to write, and one rule for retries
(https://kubernetes.io/docs/reference/using-api/api-concepts/).
"""

from __future__ import annotations

import base64
import json
import logging
import re
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote, urlencode

import urllib3

from calls import call
from cluster.command import CANCELLATION
from cluster.manifests import Manifest as Manifest
from cluster.manifests import without_nulls
from cluster.target import Target, find_target
from config.models import KubernetesSettings
from errors import PermanentError, TemporaryError
from redaction import redact

log = logging.getLogger(__name__)

FIELD_MANAGER = "isa-cloud"
# An API server restart takes 5-20 s; a rolling control plane upgrade up to a minute.
PATIENCE_SECONDS = 60.0
# A webhook has up to 30 s to answer the server: https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/#timeouts
DRY_RUN_SECONDS = 35.0
# https://github.com/kubernetes/kubernetes/blob/v1.36.3/staging/src/k8s.io/apiserver/pkg/admission/plugin/webhook/errors/statuserror.go
# and .../pkg/util/webhook/webhook.go: `Internal error occurred: failed calling webhook "NAME": …`.
WEBHOOK = re.compile(r'failed calling webhook "([^"]+)"')
# The authorizer's words (.../pkg/endpoints/handlers/responsewriters/errors.go), and those of RBAC against escalation;
# an admission plugin's 403 (a quota, a policy, a webhook) has others.
NOT_ALLOWED = re.compile(r'User "[^"]*" cannot |attempting to grant RBAC permissions')
RETRY_STATUSES = {429, 500, 502, 503, 504}
HELM_RECORD = "helm.sh/release.v1"  # compressed, and no credential: the charts refer to Secrets
DISCOVERY = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json"


class NotFound(PermanentError):
    """The object, or its kind, does not exist."""


class NotAllowed(PermanentError):
    """The identity in use lacks a permission (RBAC); the request itself may be valid."""


class WebhookFailed(TemporaryError):
    """An admission webhook is down or slow, and the server refuses such requests without it.

    Attributes:
        webhook: its name.
    """

    def __init__(self, problem: str, webhook: str) -> None:
        super().__init__(f"admission webhook {webhook} is down or slow: {problem}")
        self.webhook = webhook


class Conflict(TemporaryError):
    """The object was changed between our read and our write, or it exists already."""


class Unauthenticated(PermanentError):
    """The server does not accept the credentials."""


class Terminating(TemporaryError):
    """The namespace is being deleted: nothing can be created in it until it is gone."""


@dataclass(frozen=True)
class Resource:
    """Where a kind lives in the API.

    Attributes:
        api_version: group and version, `apps/v1`.
        kind: `StatefulSet`.
        plural: last part of the path, `statefulsets`.
        namespaced: whether its objects live in a namespace.
    """

    api_version: str
    kind: str
    plural: str
    namespaced: bool

    def path(self, namespace: str | None = None, name: str | None = None) -> str:
        """Build the path of a collection, or of one object in it."""
        root = (
            f"/apis/{self.api_version}" if "/" in self.api_version else f"/api/{self.api_version}"
        )
        parts = [root]
        if self.namespaced and namespace:
            parts.append(f"namespaces/{quote(namespace)}")
        parts.append(self.plural)
        if name:
            parts.append(quote(name))
        return "/".join(parts)


class Kube:
    """One cluster, seen with one identity. Safe to share between threads.

    Args:
        target: the API server, with the identity.
        timeout: seconds for one request.
        patience: seconds for which a request is repeated while the server does not answer or is overloaded.
        sleep: waits between repetitions; replaced in tests.
    """

    def __init__(
        self,
        target: Target,
        *,
        timeout: float = 15.0,
        patience: float = PATIENCE_SECONDS,
        sleep: Callable[[float], None] = CANCELLATION.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.target = target
        self._api = target.connect()
        # parallel nodes of the deploy share this pool
        self._api.rest_client.pool_manager.connection_pool_kw["maxsize"] = 16
        self._timeout = timeout
        self._patience = patience
        self._sleep = sleep
        self._clock = clock
        self._resources: dict[tuple[str, str], Resource] = {}
        self._discovery = threading.Lock()

    @classmethod
    def connect(cls, settings: KubernetesSettings, *, patience: float = PATIENCE_SECONDS) -> Kube:
        """Connect as the settings say: a kubeconfig, or the pod's own service account.

        Args:
            settings: which cluster.
            patience: seconds for which a request is repeated while the server does not answer.

        Raises:
            PermanentError: there is neither, or the context is unknown.
        """
        target = find_target(settings)
        return cls(target, timeout=settings.request_timeout_seconds, patience=patience)

    @property
    def server(self) -> str:
        """Address of the API server, for messages."""
        return str(self._api.configuration.host)

    # ------------------------------------------------------------------ requests
    def request(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        query: dict[str, Any] | None = None,
        content_type: str = "application/json",
        accept: str = "application/json",
    ) -> dict[str, Any]:
        """Send one request, repeated while the server does not answer.

        Returns:
            The decoded JSON answer, keys without a value left out.

        Raises:
            NotFound: 404.
            Conflict: 409.
            Unauthenticated: 401.
            Terminating: the namespace is being deleted.
            PermanentError: any other refusal, with the server's message.
            TemporaryError: the server did not answer, or was overloaded, for the whole time.
        """
        payload = None if body is None else json.dumps(body).encode()
        headers = {"Accept": accept, "Content-Type": content_type}
        path += "?" + urlencode(query) if query else ""
        return decode(self._answer(method, path, payload, headers).data)

    def now(self) -> datetime:
        """Return the time of the API server's clock, in whole seconds."""
        return parsedate_to_datetime(self._answer("GET", "/version", None, {}).headers["Date"])

    def _answer(
        self, method: str, path: str, payload: bytes | None, headers: dict[str, str]
    ) -> urllib3.BaseHTTPResponse:
        dry_run = "dryRun=All" in path
        timeout = max(self._timeout, DRY_RUN_SECONDS) if dry_run else self._timeout
        deadline = self._clock() + self._patience
        what = f"{method} {path.partition('?')[0]}"
        delay = 0.25
        while True:
            problem, cause = "", None
            try:
                self._api.update_params_for_auth(
                    headers, None, ["BearerToken"], path, method, payload
                )
                with call(f"{self.server}: {what}"):
                    answer: urllib3.BaseHTTPResponse = self._api.rest_client.pool_manager.request(
                        method,
                        self.server + path,
                        body=payload,
                        headers=headers,
                        timeout=urllib3.Timeout(total=timeout),
                        retries=False,
                    )
                if answer.status < 400:
                    return answer
                problem = _refusal(what, answer.status, answer.data)
                if answer.status not in RETRY_STATUSES:
                    raise _error(answer.status, problem, answer.data)
                webhook = WEBHOOK.search(problem)
                if webhook and (dry_run or self._clock() + delay > deadline):
                    raise WebhookFailed(problem, webhook[1])
            except urllib3.exceptions.HTTPError as exc:
                problem, cause = f"{what}: {_plain(exc)}", exc
            if self._clock() + delay > deadline:
                raise TemporaryError(
                    f"the API server {self.server} did not answer for {self._patience:.0f} s: {problem}"
                ) from cause
            log.info("%s; next attempt in %.2g s", problem, delay)
            self._sleep(delay)
            delay = min(delay * 2, 4.0)

    # ------------------------------------------------------------------ discovery
    def version(self) -> str:
        """Version of the API server, `v1.36.3`."""
        return str(self.request("GET", "/version")["gitVersion"])

    def api_versions(self) -> list[str]:
        """What the server serves, in helm's notation (`apps/v1` and `apps/v1/StatefulSet`)."""
        self._discover()
        versions = {version for version, _ in self._resources}
        return sorted(versions | {f"{version}/{kind}" for version, kind in self._resources})

    def resource(self, api_version: str, kind: str) -> Resource:
        """Find the path of a kind; asks the server a second time, because a CRD may just have been installed.

        Raises:
            NotFound: the server does not serve it.
        """
        key = (api_version, kind)
        if key not in self._resources:
            self._discover(refresh=True)
        if key not in self._resources:
            raise NotFound(
                f"{self.server} does not serve {kind} of {api_version}: is the CRD installed?"
            )
        return self._resources[key]

    def _discover(self, *, refresh: bool = False) -> None:
        with self._discovery:
            if self._resources and not refresh:
                return
            found: dict[tuple[str, str], Resource] = {}
            for root in ("/api", "/apis"):
                answer = self.request("GET", root, accept=DISCOVERY)
                for resource in _resources(answer):
                    found[resource.api_version, resource.kind] = resource
            self._resources = found

    # ------------------------------------------------------------------ objects
    def get(
        self, api_version: str, kind: str, name: str, namespace: str | None = None
    ) -> Manifest | None:
        """Read one object; None if it, or its kind, does not exist."""
        try:
            path = self.resource(api_version, kind).path(namespace, name)
            found = self.request("GET", path)
        except NotFound:
            return None
        if kind == "Secret":
            remember(found)
        return found

    def list(
        self, api_version: str, kind: str, namespace: str | None = None, selector: str = ""
    ) -> list[Manifest]:
        """Read all objects of a kind (in a namespace, with a label selector), page by page."""
        return [*self._list(api_version, kind, namespace, {"labelSelector": selector})]

    def events(self, namespace: str, about: Manifest, reason: str) -> Sequence[Manifest]:
        """Read the events of the cluster's controllers about an object.

        Args:
            namespace: of the object.
            about: kind, and metadata with name and uid.
            reason: of the events, `FailedCreate`.
        """
        metadata = about["metadata"]
        of = {"kind": about["kind"], "name": metadata["name"], "uid": metadata["uid"]}
        fields = [f"involvedObject.{key}={value}" for key, value in of.items()]
        query = {"fieldSelector": ",".join([*fields, f"reason={reason}"])}
        events: Sequence[Manifest] = self._list("v1", "Event", namespace, query)
        return events

    def _list(
        self, api_version: str, kind: str, namespace: str | None, selected: dict[str, str]
    ) -> Any:
        path = self.resource(api_version, kind).path(namespace)
        query: dict[str, Any] = {"limit": 500, **selected}
        items: Any = []
        while True:
            answer = self.request("GET", path, query=query)
            items += answer.get("items", [])
            token = answer.get("metadata", {}).get("continue")
            if not token:
                break
            query["continue"] = token
        if kind == "Secret":
            for item in items:
                remember(item)
        return items

    def create(self, manifest: Manifest) -> Manifest:
        """Create an object; `Conflict` if it exists."""
        return self.request("POST", self._path(manifest, collection=True), body=manifest)

    def replace(self, manifest: Manifest) -> Manifest:
        """Write an object whose resourceVersion must still be the newest; `Conflict` if it is not."""
        return self.request("PUT", self._path(manifest), body=manifest)

    def apply(
        self, manifest: Manifest, *, manager: str = FIELD_MANAGER, dry_run: bool = False
    ) -> Manifest:
        """Server-side apply: afterwards the object has the manifest's fields, whichever manager owned them.

        Args:
            manifest: only the fields to set.
            manager: owner of these fields; `helm` where a chart owns them.
            dry_run: only compute what the object would be.
        """
        query = {"fieldManager": manager, "force": "true"}
        if dry_run:
            query["dryRun"] = "All"
        return self.request(
            "PATCH",
            self._path(manifest),
            body=manifest,
            query=query,
            content_type="application/apply-patch+yaml",
        )

    def scale(self, manifest: Manifest, replicas: int) -> None:
        """Set the number of a workload's pods, by the subresource: that permission changes nothing else."""
        path, query = f"{self._path(manifest)}/scale", {"fieldManager": FIELD_MANAGER}
        content_type = "application/merge-patch+json"
        body = {"spec": {"replicas": replicas}}
        self.request("PATCH", path, body=body, query=query, content_type=content_type)

    def patch(self, manifest: Manifest, change: dict[str, Any]) -> Manifest:
        """JSON merge patch of one object."""
        path, query = self._path(manifest), {"fieldManager": FIELD_MANAGER}
        content_type = "application/merge-patch+json"
        return self.request("PATCH", path, body=change, query=query, content_type=content_type)

    def json_patch(
        self, manifest: Manifest, operations: Sequence[dict[str, Any]], *, dry_run: bool = False
    ) -> Manifest:
        """JSON patch (RFC 6902) of one object.

        Args:
            manifest: which one.
            operations: one after the other; a `test` that fails is an error, and nothing is changed.
            dry_run: only compute what the object would be.
        """
        query = {"fieldManager": FIELD_MANAGER} | ({"dryRun": "All"} if dry_run else {})
        content_type = "application/json-patch+json"
        path = self._path(manifest)
        return self.request("PATCH", path, body=operations, query=query, content_type=content_type)

    def delete(
        self,
        api_version: str,
        kind: str,
        name: str,
        namespace: str | None = None,
        uid: str | None = None,
    ) -> None:
        """Delete one object, its dependants in the background; no error if it does not exist.

        Raises:
            Conflict: it has another uid: a new object was created under its name.
        """
        only = {"preconditions": {"uid": uid}} if uid else {}
        options = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
        try:
            path = self.resource(api_version, kind).path(namespace, name)
            self.request("DELETE", path, body={**options, **only})
        except NotFound:
            return

    def _path(self, manifest: Manifest, *, collection: bool = False) -> str:
        metadata = manifest["metadata"]
        resource = self.resource(manifest["apiVersion"], manifest["kind"])
        return resource.path(metadata.get("namespace"), None if collection else metadata["name"])


def remember(secret: Manifest) -> None:
    """Redact the values of a Secret in logs and messages."""
    if secret.get("type") != HELM_RECORD:
        for value in (secret.get("data") or {}).values():
            redact.remember(base64.b64decode(value).decode(errors="replace"))


def _resources(discovery: dict[str, Any]) -> Iterable[Resource]:
    for group in discovery.get("items", []):
        name = group.get("metadata", {}).get("name", "")
        for version in group.get("versions", []):
            api_version = f"{name}/{version['version']}" if name else version["version"]
            for entry in version.get("resources", []):
                kind = entry.get("responseKind", {}).get("kind")
                if kind and "apply" not in kind:
                    yield Resource(
                        api_version, kind, entry["resource"], entry["scope"] == "Namespaced"
                    )


def decode(data: bytes) -> dict[str, Any]:
    """An answer of the API server, without keys that have no value; a text that is no document as its `message`."""
    if not data.startswith(b"{"):
        return {"message": data.decode(errors="replace")}  # /readyz answers plain text
    return dict(without_nulls(json.loads(data)))


def _refusal(what: str, status: int, data: bytes) -> str:
    try:
        words = str(json.loads(data).get("message", ""))
    except ValueError:
        words = data[:300].decode(errors="replace")
    return f"{what}: HTTP {status}: {words}"


def _error(status: int, problem: str, data: bytes) -> PermanentError | TemporaryError:
    if status == 404:
        return NotFound(problem)
    if status == 409:
        return Conflict(problem, delay=1.0)
    if status == 401:
        return Unauthenticated(
            f"{problem}: the API server does not accept these credentials: the token or certificate has expired, was "
            "revoked, or belongs to another cluster. Log in again, or renew the kubeconfig"
        )
    if status == 403 and "NamespaceTerminating" in _causes(data):
        return Terminating(
            f"{problem}. The namespace is being deleted: wait until it is gone, then run this again (kubectl get "
            "namespace NAME -o yaml shows what holds it)",
            delay=15.0,
        )
    if status == 403 and NOT_ALLOWED.search(problem):
        return NotAllowed(f"{problem} (the credentials in use do not have this permission)")
    return PermanentError(problem)


def _causes(data: bytes) -> set[str]:
    """Reasons in a refusal's details (apimachinery/pkg/apis/meta/v1/types.go: `StatusDetails`)."""
    try:
        details = json.loads(data).get("details") or {}
    except (ValueError, AttributeError):
        return set()
    return {str(cause.get("reason")) for cause in details.get("causes") or ()}


def _plain(exc: BaseException) -> str:
    reason = getattr(exc, "reason", None)
    return f"{type(exc).__name__}: {reason or exc}"
