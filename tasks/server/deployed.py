"""Deployments as prefect.yaml and the settings declare them, and how those of the server differ.

Both are converted into one form (`Terms`), a flat map of everything that a caller of the API can change, and compared
as a whole. `isa doctor` names the keys that differ, `isa setup` corrects them, and the process of a run checks the part
that defines the executed code (`code_faults`).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from prefect.flows import load_flow_arguments_from_entrypoint
from prefect.utilities.callables import parameter_schema_from_entrypoint

from config.loading import ROOT, variable
from config.models import Settings
from config.sections.control import NEVER
from config.text.printable import json_text
from tasks.server.api import delete, deployments, document, every, patch, post

Document = Mapping[str, Any]
Terms = dict[str, Any]

OURS = "isa-cloud"  # the tag that prefect.yaml gives every deployment
# What is run, and where; workers refuse a run of which it differs (`flows.execute`).
CODE = {"entrypoint", "work pool", "work queue", "pull steps", "job variables", "storage block"}
# An operator may pause in the UI; the others change no run.
HARMLESS = {"paused", "description", "tags", "text of the form"}
IN_FORCE = {
    "active": True,
    "slot_decay_per_second": 0.0,
}  # a limit that holds until a run has ended
TEXTS = {"title", "description", "position"}  # of a parameter's schema: how the UI's form shows it
SHOWN = 100  # characters of a value in a finding
PLACE = re.compile(r"\{\{ \$(\w+) \}\}")
ABSENT = object()


@dataclass(frozen=True)
class Present:
    """Deployments of the server, as its API returns them.

    Attributes:
        own: those with a declared name and flow, by name.
        foreign: all others in a declared work pool, or with this project's tag.
    """

    own: Mapping[str, Document]
    foreign: tuple[Document, ...]


def variables(settings: Settings) -> dict[str, str]:
    """The variables that prefect.yaml refers to."""
    schedules = settings.schedules.model_dump()
    components = schedules.pop("components")
    return {
        "ISA_ENV": settings.environment,
        **{variable(f"schedules.{name}"): text for name, text in schedules.items()},
        **{variable(f"schedules.components.{name}"): text for name, text in components.items()},
    }


def filled(text: str, environ: Mapping[str, str]) -> str:
    """A text of prefect.yaml as `prefect deploy` reads it."""
    return PLACE.sub(lambda found: environ[found[1]], text)


def declared(settings: Settings) -> dict[str, Terms]:
    """The terms of every deployment in prefect.yaml, by name."""
    environ = variables(settings)
    return {one["name"]: _declared(one, environ) for one in registered(settings)["deployments"]}


def registered(settings: Settings) -> dict[str, Any]:
    """prefect.yaml without the schedules that are switched off in the settings."""
    environ, whole = variables(settings), document()
    for one in whole["deployments"]:
        used = [s for s in one.pop("schedules", ()) if filled(s["cron"], environ) != NEVER]
        if used:
            one["schedules"] = used
    return whole


def present() -> Present:
    """Read all deployments from the server.

    Raises:
        PermanentError, TemporaryError: the server refuses, or does not answer.
    """
    flows = {flow["id"]: flow["name"] for flow in every("/flows/filter")}
    names = {
        deployment["name"]: flow_name(deployment["entrypoint"]) for deployment in deployments()
    }
    here = pools()
    own: dict[str, Document] = {}
    foreign = []
    for live in every("/deployments/filter"):
        flow = flows.get(live["flow_id"], "")
        if names.get(live["name"]) == flow:
            own[live["name"]] = live
        elif live["work_pool_name"] in here or OURS in live["tags"]:
            foreign.append({**live, "flow": flow})
    return Present(own, tuple(foreign))


def pools() -> set[str]:
    """Work pools that prefect.yaml names."""
    return {deployment["work_pool"]["name"] for deployment in deployments()}


def queues() -> set[str]:
    """Work queues that prefect.yaml names."""
    return {deployment["work_pool"]["work_queue_name"] for deployment in deployments()}


def differences(declaration: Terms, live: Document) -> dict[str, str]:
    """Return each difference as text, by its key.

    Args:
        declaration: the declared terms.
        live: the deployment as the API returns it.
    """
    return _differing(declaration, _terms(live))


def code_faults(one: Document, live: Document) -> list[str]:
    """Return how a deployment of the server differs from prefect.yaml in the code it runs and where.

    Args:
        one: its part of prefect.yaml.
        live: as the API returns it.
    """
    return [*_differing(_code(one), _code_of(live)).values()]


def remove_undeclared_schedules(declaration: Terms, live: Document) -> None:
    """Delete the schedules that `prefect deploy` would leave: it updates those of a declared slug and no others.

    See `update_deployment` in prefect/server/api/deployments.py, 3.8.8. A limit of runs (`max_scheduled_runs`) cannot
    be taken from a schedule either.
    """
    for key, one in _schedules(live["schedules"]).items():
        if key not in declaration or one["max_scheduled_runs"] is not None:
            delete(f"/deployments/{live['id']}/schedules/{one['id']}")


def complete(name: str, live: Document) -> None:
    """Set what `prefect deploy` leaves unchanged or cannot express.

    The schema that Prefect derives from a flow's signature allows further parameters: a call with a misspelt one was
    answered with 201, and the run crashed. `additionalProperties: false` forbids them
    (https://json-schema.org/understanding-json-schema/reference/object#additionalproperties); the server checks a call
    against it and answers 409 (`create_flow_run_from_deployment` in prefect/server/api/deployments.py, 3.8.8).
    """
    (one,) = (deployment for deployment in deployments() if deployment["name"] == name)
    body = {
        "parameter_openapi_schema": parameter_schema(one["entrypoint"]),
        "enforce_parameter_schema": True,
        "path": None,
        "infrastructure_document_id": None,
        "storage_document_id": None,
    }
    patch(f"/deployments/{live['id']}", body)
    if limit := live["global_concurrency_limit"]:
        patch(f"/v2/concurrency_limits/{limit['id']}", IN_FORCE)


def pause(live: Document) -> None:
    """Pause a deployment again that `prefect deploy` has resumed."""
    post(f"/deployments/{live['id']}/pause_deployment", {})


@functools.cache
def flow_name(entrypoint: str) -> str:
    """Name of the flow at an entrypoint of prefect.yaml, read from its source."""
    return str(load_flow_arguments_from_entrypoint(f"{ROOT}/{entrypoint}")["name"])


@functools.cache
def parameter_schema(entrypoint: str) -> dict[str, Any]:
    """Return the JSON schema of a flow's parameters, as the server should hold it."""
    schema = parameter_schema_from_entrypoint(f"{ROOT}/{entrypoint}")
    return {**schema.model_dump(mode="json", exclude_unset=True), "additionalProperties": False}


# ---------------------------------------------------------------------- inside
def _differing(declaration: Terms, held: Terms) -> dict[str, str]:
    found = {}
    for key in [*declaration, *sorted(held.keys() - declaration.keys())]:
        expected, value = declaration.get(key, ABSENT), held.get(key, ABSENT)
        if value != expected:
            found[key] = _words(key, value, expected)
    return found


def _declared(one: Document, environ: Mapping[str, str]) -> Terms:
    limit = one.get("concurrency_limit") or {}
    defaults = {
        key: filled(value, environ) if isinstance(value, str) else value
        for key, value in one["parameters"].items()
    }
    schedules = [
        {
            "slug": schedule["slug"],
            "schedule": {
                "cron": filled(schedule["cron"], environ),
                "timezone": filled(schedule["timezone"], environ),
                "day_or": True,  # as croniter's and as Prefect's default
            },
            "parameters": schedule.get("parameters", {}),
            "max_scheduled_runs": None,
            "active": True,
        }
        for schedule in one.get("schedules", ())
    ]
    return {
        **_code(one),
        "path": None,
        "infrastructure block": None,
        **_defaults(defaults),
        **_timetable(schedules),
        "concurrency limit": limit.get("limit"),
        "concurrency limit is enforced": IN_FORCE if limit else {},
        "collision strategy": limit.get("collision_strategy"),
        "grace period": limit.get("grace_period_seconds"),
        "parameters are validated": True,
        **_form(parameter_schema(one["entrypoint"])),
        "paused": [],
        "description": one["description"],
        "tags": sorted(one["tags"]),
    }


def _terms(live: Document) -> Terms:
    options, limit = live["concurrency_options"] or {}, live["global_concurrency_limit"] or {}
    return {
        **_code_of(live),
        "path": live["path"],
        "infrastructure block": live["infrastructure_document_id"],
        **_defaults(live["parameters"]),
        **_timetable(live["schedules"]),
        "concurrency limit": limit.get("limit"),
        "concurrency limit is enforced": {key: limit[key] for key in IN_FORCE if key in limit},
        "collision strategy": options.get("collision_strategy"),
        "grace period": options.get("grace_period_seconds"),
        "parameters are validated": live["enforce_parameter_schema"],
        **_form(live["parameter_openapi_schema"] or {}),
        "paused": _paused(live),
        "description": live["description"],
        "tags": sorted(live["tags"]),
    }


def _code(one: Document) -> Terms:
    """The terms that define what is run, and where, from a part of prefect.yaml."""
    return {
        "entrypoint": one["entrypoint"],
        "work pool": one["work_pool"]["name"],
        "work queue": one["work_pool"]["work_queue_name"],
        "pull steps": [],
        "job variables": {},
        "storage block": None,
    }


def _code_of(live: Document) -> Terms:
    return {
        "entrypoint": live.get("entrypoint"),
        "work pool": live.get("work_pool_name"),
        "work queue": live.get("work_queue_name"),
        "pull steps": live.get("pull_steps") or [],
        "job variables": live.get("job_variables") or {},
        "storage block": live.get("storage_document_id"),
    }


def _defaults(parameters: Document) -> Terms:
    return {f"default of {name}": value for name, value in parameters.items()}


def _timetable(schedules: Iterable[Document]) -> Terms:
    """The schedules and their parameters; whether they are paused is compared elsewhere."""
    found: Terms = {}
    for key, one in _schedules(schedules).items():
        found[key] = one["schedule"]
        found[f"parameters of {key}"] = one["parameters"]
        if one["max_scheduled_runs"] is not None:
            found[f"most runs of {key}"] = one["max_scheduled_runs"]
    return found


def _schedules(schedules: Iterable[Document]) -> dict[str, Document]:
    """Schedules by slug; one without a slug, or a duplicate, by its id."""
    found: dict[str, Document] = {}
    for schedule in schedules:
        key = f"schedule {schedule['slug']}"
        found[key if schedule["slug"] and key not in found else f"schedule {schedule['id']}"] = (
            schedule
        )
    return found


def _paused(live: Document) -> list[str]:
    whole = ["the deployment"] if live["paused"] else []
    return whole + [key for key, one in _schedules(live["schedules"]).items() if not one["active"]]


def _form(schema: Document) -> Terms:
    """Split a JSON schema of parameters: what is validated, by parameter, and the texts for people."""
    properties = schema.get("properties") or {}
    rest = {key: value for key, value in schema.items() if key not in {"properties", *TEXTS}}
    rest["required"] = sorted(schema.get("required") or ())
    return {
        "schema": rest,
        **{
            f"schema of {name}": {key: value for key, value in one.items() if key not in TEXTS}
            for name, one in properties.items()
        },
        "text of the form": {
            name: {key: one[key] for key in sorted(TEXTS & one.keys())}
            for name, one in properties.items()
        },
    }


def _words(key: str, value: Any, expected: Any) -> str:
    if key.startswith("schema") or key == "text of the form":
        return f"{key} differs"  # too long to be read
    if expected is ABSENT:
        return f"{key} is {_short(value)} and not declared"
    return f"{key} is {_short(value)} instead of {_short(expected)}"


def _short(value: Any) -> str:
    if value is ABSENT:
        return "absent"
    text = json_text(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
