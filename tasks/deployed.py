"""Deployments as prefect.yaml and the settings declare them, and how those of the server differ.

Both are brought into one form (`Terms`), a flat map of everything that a caller of the API can change, and compared
whole. `isa doctor` names the keys that differ, `isa setup` brings them back, and the process of a run asks for the part
that says what is run (`code_faults`).
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
from config.printable import json_text
from tasks.server import delete, deployments, every, patch, post

Document = Mapping[str, Any]
Terms = dict[str, Any]

OURS = "isa-cloud"  # the tag that prefect.yaml gives every deployment
# What is run, and where; workers refuse a run of which it differs (`flows.execute`).
CODE = {"entrypoint", "work pool", "work queue", "pull steps", "job variables", "storage block"}
# An operator may pause in the UI; the others change no run.
HARMLESS = {"paused", "description", "tags", "texts of the form"}
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
    """Deployments of the server, as its API gives them.

    Attributes:
        own: those of a declared name and flow, by name.
        foreign: all others that are in a declared work pool or have this project's tag.
    """

    own: Mapping[str, Document]
    foreign: tuple[Document, ...]


def variables(settings: Settings) -> dict[str, str]:
    """What prefect.yaml asks its environment for."""
    schedules = settings.schedules.model_dump()
    return {
        "ISA_ENV": settings.environment,
        **{variable(f"schedules.{name}"): text for name, text in schedules.items()},
    }


def filled(text: str, environ: Mapping[str, str]) -> str:
    """A text of prefect.yaml as `prefect deploy` reads it."""
    return PLACE.sub(lambda found: environ[found[1]], text)


def declared(settings: Settings) -> dict[str, Terms]:
    """The terms of every deployment in prefect.yaml, by name."""
    environ = variables(settings)
    return {one["name"]: _declared(one, environ) for one in deployments()}


def present() -> Present:
    """Ask the server for all deployments.

    Raises:
        PermanentError, TemporaryError: the server refuses, or is away.
    """
    flows = {one["id"]: one["name"] for one in every("/flows/filter")}
    names = {one["name"]: flow_name(one["entrypoint"]) for one in deployments()}
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
    return {one["work_pool"]["name"] for one in deployments()}


def queues() -> set[str]:
    """Work queues that prefect.yaml names."""
    return {one["work_pool"]["work_queue_name"] for one in deployments()}


def differences(declaration: Terms, live: Document) -> dict[str, str]:
    """What differs, in words, by its key.

    Args:
        declaration: the declared terms.
        live: the deployment as the API gives it.
    """
    return _differing(declaration, _terms(live))


def code_faults(one: Document, live: Document) -> list[str]:
    """How a deployment of the server differs from prefect.yaml in what is run, and where.

    Args:
        one: its part of prefect.yaml.
        live: as the API gives it.
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
    """Set what `prefect deploy` leaves or has no word for.

    The schema that Prefect makes of a flow's signature allows further parameters: a call with a misspelt one was
    answered with 201, and the run crashed. `additionalProperties: false` forbids them
    (https://json-schema.org/understanding-json-schema/reference/object#additionalproperties); the server checks a call
    against it and answers 409 (`create_flow_run_from_deployment` in prefect/server/api/deployments.py, 3.8.8).
    """
    (one,) = (one for one in deployments() if one["name"] == name)
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
    """Pause a deployment whose pausing `prefect deploy` has ended."""
    post(f"/deployments/{live['id']}/pause_deployment", {})


@functools.cache
def flow_name(entrypoint: str) -> str:
    """Name of the flow at an entrypoint of prefect.yaml, read from its source."""
    return str(load_flow_arguments_from_entrypoint(f"{ROOT}/{entrypoint}")["name"])


@functools.cache
def parameter_schema(entrypoint: str) -> dict[str, Any]:
    """The JSON schema of a flow's parameters, as the server shall hold it."""
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
        "limit is in force": IN_FORCE if limit else {},
        "collision strategy": limit.get("collision_strategy"),
        "grace period": limit.get("grace_period_seconds"),
        "parameters are checked": True,
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
        "limit is in force": {key: limit[key] for key in IN_FORCE if key in limit},
        "collision strategy": options.get("collision_strategy"),
        "grace period": options.get("grace_period_seconds"),
        "parameters are checked": live["enforce_parameter_schema"],
        **_form(live["parameter_openapi_schema"] or {}),
        "paused": _paused(live),
        "description": live["description"],
        "tags": sorted(live["tags"]),
    }


def _code(one: Document) -> Terms:
    """What is run, and where, of a part of prefect.yaml."""
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
    """When runs are made, and of what; whether that is paused stands elsewhere."""
    found: Terms = {}
    for key, one in _schedules(schedules).items():
        found[key] = one["schedule"]
        found[f"parameters of {key}"] = one["parameters"]
        if one["max_scheduled_runs"] is not None:
            found[f"most runs of {key}"] = one["max_scheduled_runs"]
    return found


def _schedules(schedules: Iterable[Document]) -> dict[str, Document]:
    """By slug; one without a slug, or a second one of the same, by its id."""
    found: dict[str, Document] = {}
    for one in schedules:
        key = f"schedule {one['slug']}"
        found[key if one["slug"] and key not in found else f"schedule {one['id']}"] = one
    return found


def _paused(live: Document) -> list[str]:
    whole = ["the deployment"] if live["paused"] else []
    return whole + [key for key, one in _schedules(live["schedules"]).items() if not one["active"]]


def _form(schema: Document) -> Terms:
    """A JSON schema of parameters: what is checked by parameter, and what people read."""
    properties = schema.get("properties") or {}
    rest = {key: value for key, value in schema.items() if key not in {"properties", *TEXTS}}
    rest["required"] = sorted(schema.get("required") or ())
    return {
        "schema": rest,
        **{
            f"schema of {name}": {key: value for key, value in one.items() if key not in TEXTS}
            for name, one in properties.items()
        },
        "texts of the form": {
            name: {key: one[key] for key in sorted(TEXTS & one.keys())}
            for name, one in properties.items()
        },
    }


def _words(key: str, value: Any, expected: Any) -> str:
    if key.startswith("schema") or key == "texts of the form":
        return f"{key} is another"  # too long to be read
    if expected is ABSENT:
        return f"{key} is {_short(value)} and not declared"
    return f"{key} is {_short(value)} instead of {_short(expected)}"


def _short(value: Any) -> str:
    if value is ABSENT:
        return "absent"
    text = json_text(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
