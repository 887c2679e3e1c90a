"""What a refusal of the API server means; its words as kube-apiserver 1.36 said them."""

from __future__ import annotations

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from cluster.kube import Kube, NotAllowed, WebhookFailed
from errors import PermanentError, TemporaryError

WEBHOOK = (
    'Internal error occurred: failed calling webhook "guard.example.org": failed to call webhook: '
    'Post "https://127.0.0.1:1/x?timeout=2s": dial tcp 127.0.0.1:1: connect: connection refused'
)
Ask = Callable[..., Any]


class Clock:
    """Time that passes by sleeping alone."""

    now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


def kube(clock: Clock, status: int, message: str, seen: list[float] | None = None) -> Kube:
    """A server that refuses everything with the same words."""

    def request(*_: Any, timeout: Any, **__: Any) -> Any:
        if seen is not None:
            seen.append(timeout.total)
        return SimpleNamespace(status=status, data=json.dumps({"message": message}).encode())

    api: Any = SimpleNamespace(
        update_params_for_auth=lambda *_: None,
        configuration=SimpleNamespace(host="https://server"),
        rest_client=SimpleNamespace(
            pool_manager=SimpleNamespace(request=request, connection_pool_kw={})
        ),
    )
    target: Any = SimpleNamespace(connect=lambda: api)
    return Kube(target, sleep=clock.sleep, clock=clock)


@pytest.mark.parametrize(
    "words",
    [
        'statefulsets.apps "a" is forbidden: User "deployer" cannot patch resource "statefulsets" in API group "apps"',
        'roles.rbac.authorization.k8s.io "a" is forbidden: user "x" (groups=["y"]) is attempting to grant RBAC '
        "permissions not currently held",
    ],
)
def test_a_right_that_is_lacking_is_told_apart(clock: Clock, words: str) -> None:
    with pytest.raises(NotAllowed, match="do not have this permission"):
        kube(clock, 403, words).request("PATCH", "/x")


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (403, 'pods "a" is forbidden: exceeded quota: q, requested: pods=1, used: pods=3, limited: pods=3'),
        (403, 'admission webhook "guard.example.org" denied the request: no'),
        (422, "ValidatingAdmissionPolicy 'no' with binding 'no' denied request: not here"),
    ],
)  # fmt: skip
def test_a_quota_a_policy_or_a_webhook_that_says_no_is_no_lacking_right(
    clock: Clock, status: int, words: str
) -> None:
    with pytest.raises(PermanentError) as caught:
        kube(clock, status, words).request("PATCH", "/x")
    assert not isinstance(caught.value, NotAllowed)
    assert words in str(caught.value)
    assert "credentials" not in str(caught.value)


def test_a_webhook_that_is_down_is_named_and_a_dry_run_does_not_wait_for_it(clock: Clock) -> None:
    with pytest.raises(
        WebhookFailed, match=r"webhook guard\.example\.org is down or slow"
    ) as caught:
        kube(clock, 500, WEBHOOK).request("PATCH", "/x", query={"dryRun": "All"})
    assert caught.value.webhook == "guard.example.org"
    assert clock.now == 0


def test_a_write_waits_for_a_webhook_as_for_the_server_and_names_it_then(clock: Clock) -> None:
    with pytest.raises(WebhookFailed):
        kube(clock, 500, WEBHOOK).request("PATCH", "/x")
    assert 50 < clock.now <= 60


def test_any_other_fault_of_the_server_is_the_servers(clock: Clock) -> None:
    with pytest.raises(TemporaryError, match="did not answer for 60 s") as caught:
        kube(clock, 500, "etcdserver: request timed out").request("PATCH", "/x")
    assert not isinstance(caught.value, WebhookFailed)


def test_a_dry_run_has_the_time_that_a_slow_webhook_may_take(clock: Clock) -> None:
    seen: list[float] = []
    server = kube(clock, 422, "no", seen)
    for query in ({"dryRun": "All"}, {}):
        with pytest.raises(PermanentError):
            server.request("PATCH", "/x", query=query)
    assert seen == [35.0, 15.0]
