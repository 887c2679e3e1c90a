"""Whatever a caller of the API changes in a deployment, the doctor names it and `isa setup` brings it back."""

from __future__ import annotations

import copy
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from prefect.utilities.schema_tools import ValidationError, validate

from config.loading import load
from operations.health.findings import Finding
from tasks.server import api as server
from tasks.server import deployed, doctor
from tasks.server.deployed import (
    declared,
    filled,
    flow_name,
    parameter_schema,
    registered,
    variables,
)

SETTINGS = load("sandbox", {})
ENVIRON = variables(SETTINGS)
DECLARED = registered(SETTINGS)["deployments"]
NAMES = [one["name"] for one in DECLARED]
Live = dict[str, Any]


def defaults_of(one: dict[str, Any]) -> dict[str, Any]:
    """The default parameters of a declared deployment."""
    return {
        key: filled(value, ENVIRON) if isinstance(value, str) else value
        for key, value in one["parameters"].items()
    }


def live_of(one: dict[str, Any]) -> Live:
    """A declared deployment as a server 3.8.8 gave it after `isa setup`."""
    limit = one.get("concurrency_limit")
    return {
        "id": f"id-{one['name']}",
        "name": one["name"],
        "flow_id": flow_name(one["entrypoint"]),
        "paused": False,
        "description": one["description"],
        "tags": one["tags"],
        "entrypoint": one["entrypoint"],
        "path": None,
        "pull_steps": [],
        "job_variables": {},
        "storage_document_id": None,
        "infrastructure_document_id": None,
        "work_pool_name": one["work_pool"]["name"],
        "work_queue_name": one["work_pool"]["work_queue_name"],
        "parameters": defaults_of(one),
        "schedules": [
            {
                "id": f"id-{schedule['slug']}",
                "updated": "2026-11-01T00:00:00Z",
                "slug": schedule["slug"],
                "active": True,
                "max_scheduled_runs": None,
                "parameters": schedule.get("parameters", {}),
                "schedule": {
                    "cron": filled(schedule["cron"], ENVIRON),
                    "timezone": filled(schedule["timezone"], ENVIRON),
                    "day_or": True,
                },
            }
            for schedule in one.get("schedules", ())
        ],
        "global_concurrency_limit": limit
        and {"id": "limit", "limit": limit["limit"], "active": True, "slot_decay_per_second": 0.0},
        "concurrency_options": limit
        and {"collision_strategy": limit["collision_strategy"], "grace_period_seconds": None},
        "enforce_parameter_schema": True,
        "parameter_openapi_schema": parameter_schema(one["entrypoint"]),
    }


class Server:
    """The deployments of a server, as its API lists and changes them, in pages of 200 at most."""

    def __init__(self) -> None:
        self.live = [copy.deepcopy(live_of(one)) for one in DECLARED]
        self.lists, self.runs_to_come = 0, 3
        self.type = "process"

    def __getitem__(self, name: str) -> Live:
        return next(one for one in self.live if one["name"] == name)

    def add(self, name: str, flow: str = "evil", **more: Any) -> Live:
        made = {**self["doctor"], "id": f"id-{name}", "name": name, "flow_id": flow, **more}
        self.live.append(made)
        return made

    def post(self, path: str, body: dict[str, Any]) -> Any:
        if path == "/flow_runs/count":
            return self.runs_to_come
        if path == "/flows/filter":
            rows = [{"id": flow, "name": flow} for flow in {one["flow_id"] for one in self.live}]
        else:
            assert path == "/deployments/filter"
            self.lists += body["offset"] == 0
            rows = self.live
        assert body["limit"] <= 200
        return sorted(rows, key=lambda one: one["name"])[body["offset"] :][: body["limit"]]

    def get(self, path: str) -> Any:
        assert path == "/work_pools/isa-platform"
        return {"type": self.type, "base_job_template": server.JOB_TEMPLATE}

    def patch(self, path: str, body: dict[str, Any]) -> None:
        for one in self.live:
            if path == f"/deployments/{one['id']}":
                one.update(body)
            elif path == "/v2/concurrency_limits/limit" and one["global_concurrency_limit"]:
                one["global_concurrency_limit"].update(body)

    def delete(self, path: str) -> None:
        _, _, identity, _, schedule = path.split("/")
        one = next(one for one in self.live if one["id"] == identity)
        one["schedules"] = [kept for kept in one["schedules"] if kept["id"] != schedule]


@pytest.fixture
def prefect(monkeypatch: pytest.MonkeyPatch) -> Server:
    made = Server()
    monkeypatch.setattr(server, "post", made.post)
    monkeypatch.setattr(doctor, "post", made.post)
    monkeypatch.setattr(doctor, "get", made.get)
    monkeypatch.setattr(deployed, "patch", made.patch)
    monkeypatch.setattr(deployed, "delete", made.delete)
    return made


def bad() -> dict[str, Finding]:
    found = doctor.check_deployments(SETTINGS)
    return {one.check.name: one for one in found if not one.check.ok}


def a_schedule(**more: Any) -> dict[str, Any]:
    schedule = {"cron": "0 * * * *", "timezone": "UTC", "day_or": True}
    made = {"id": "id-new", "slug": None, "active": True, "max_scheduled_runs": None}
    made["updated"] = "2026-11-01T00:00:00Z"
    return {**made, "schedule": schedule, "parameters": {}, **more}


def test_a_pool_of_another_type_than_the_settings_is_a_warning(prefect: Server) -> None:
    prefect.type = "kubernetes"
    (found,) = bad().values()
    assert found.check.hint.startswith("kubernetes instead of process")
    assert not found.check.critical


def test_a_server_as_declared_is_well_and_asked_for_its_deployments_once(prefect: Server) -> None:
    assert bad() == {}
    assert prefect.lists == 1


CHANGES: dict[str, tuple[str, Callable[[Live], Any], str]] = {
    "a default": (
        "backup-nightly",
        lambda one: one["parameters"].update(only=["emqx"]),
        'default of only is ["emqx"] and not declared',
    ),
    "another environment": (
        "backup-nightly",
        lambda one: one["parameters"].update(environment="staging"),
        'default of environment is "staging" instead of "sandbox"',
    ),
    "a restore without a safety backup": (
        "restore-component",
        lambda one: one["parameters"].update(safety_backup=False),
        "default of safety_backup is false and not declared",
    ),
    "a restore every hour": (
        "restore-component",
        lambda one: one["schedules"].append(a_schedule(parameters={"safety_backup": False})),
        'parameters of schedule id-new is {"safety_backup": false} and not declared',
    ),
    "parameters of a schedule": (
        "retention",
        lambda one: one["schedules"][0].update(parameters={"apply": True}),
        'parameters of schedule daily is {"apply": true} instead of {"apply": false}',
    ),
    "a cron": (
        "backup-nightly",
        lambda one: one["schedules"][0]["schedule"].update(cron="0 1 1 1 *"),
        "schedule nightly is",
    ),
    "a time zone": (
        "backup-nightly",
        lambda one: one["schedules"][0]["schedule"].update(timezone="Asia/Tokyo"),
        "schedule nightly is",
    ),
    "no schedule": (
        "verify-restores",
        lambda one: one["schedules"].pop(),
        "schedule weekly-sample is absent instead of",
    ),
    "a second schedule of a slug": (
        "backup-nightly",
        lambda one: one["schedules"].append(a_schedule(slug="nightly")),
        "schedule id-new is",
    ),
    "a schedule that ends": (
        "backup-nightly",
        lambda one: one["schedules"][0].update(max_scheduled_runs=1),
        "most runs of schedule nightly is 1 and not declared",
    ),
    "no limit": (
        "deploy-platform",
        lambda one: one.update(global_concurrency_limit=None),
        "concurrency limit is null instead of 1",
    ),
    "another strategy": (
        "restore-component",
        lambda one: one["concurrency_options"].update(collision_strategy="ENQUEUE"),
        'collision strategy is "ENQUEUE" instead of "CANCEL_NEW"',
    ),
    "a limit of a run that pauses": (
        "rebuild-component",
        lambda one: one.update(global_concurrency_limit={"limit": 1}),
        "concurrency limit is 1 instead of null",
    ),
    "a limit that does not hold": (
        "deploy-platform",
        lambda one: one["global_concurrency_limit"].update(active=False),
        "concurrency limit is enforced",
    ),
    "a limit that ends by itself": (
        "deploy-platform",
        lambda one: one["global_concurrency_limit"].update(slot_decay_per_second=9.0),
        "concurrency limit is enforced",
    ),
    "an empty schema": (
        "restore-component",
        lambda one: one.update(parameter_openapi_schema={"properties": {}}),
        "schema of confirm differs",
    ),
    "no schema": (
        "restore-component",
        lambda one: one.update(parameter_openapi_schema=None),
        "schema of confirm differs",
    ),
    "parameters that nobody knows": (
        "doctor",
        lambda one: one["parameter_openapi_schema"].update(additionalProperties=True),
        "schema differs",
    ),
    "an unchecked schema": (
        "doctor",
        lambda one: one.update(enforce_parameter_schema=False),
        "parameters are validated is false instead of true",
    ),
    "another queue": (
        "doctor",
        lambda one: one.update(work_queue_name="proofs"),
        "workers refuse its runs",
    ),
    "pull steps": (
        "doctor",
        lambda one: one.update(pull_steps=[{"run": 1}]),
        "workers refuse its runs",
    ),
    "a path": ("doctor", lambda one: one.update(path="/tmp"), 'path is "/tmp" instead of null'),
}  # fmt: skip


def test_each_change_is_one_critical_finding_that_names_it_and_its_cure(prefect: Server) -> None:
    for what, (name, change, words) in CHANGES.items():
        kept, changed = prefect.live, copy.deepcopy(prefect[name])
        change(changed)
        prefect.live = [changed if one["name"] == name else one for one in kept]
        found = bad()
        assert found.keys() == {f"declaration of {name}"}, what
        (finding,) = found.values()
        assert finding.check.critical, what
        assert words in finding.check.hint, what
        assert "run isa setup to restore it" in finding.check.hint, what
        assert finding.fix is not None, what
        prefect.live = kept


@pytest.mark.parametrize(
    ("change", "fixed"),
    [
        (lambda one: one["schedules"][0].update(active=False), False),
        (lambda one: one.update(paused=True), False),
        (lambda one: one.update(tags=[], description="mine"), True),
    ],
    ids=["schedule paused", "deployment paused", "texts"],
)
def test_what_operators_may_change_is_a_warning_and_no_pause_is_ended(
    change: Callable[[Live], Any], fixed: bool, prefect: Server
) -> None:
    change(prefect["doctor"])
    (finding,) = bad().values()
    assert not finding.check.critical
    assert (finding.fix is not None) == fixed


def test_a_changed_schedule_is_critical_though_another_one_is_paused(prefect: Server) -> None:
    daily, weekly = prefect["verify-restores"]["schedules"]
    daily["active"], weekly["parameters"] = False, {}
    (finding,) = bad().values()
    assert finding.check.critical


def test_a_deployment_that_is_gone_is_critical(prefect: Server) -> None:
    prefect.live.remove(prefect["backup-nightly"])
    (finding,) = bad().values()
    assert finding.check.critical and finding.check.hint == "does not exist: run isa setup"


def test_a_scheduler_that_makes_no_runs_is_critical_once_it_had_the_time(prefect: Server) -> None:
    prefect.runs_to_come = 0
    assert bad().keys() == {
        f"schedule of {name}"
        for name in ("backup-nightly", "verify-restores", "retention", "doctor")
    }
    for one in prefect.live:
        for schedule in one["schedules"]:
            schedule["updated"] = datetime.now(UTC).isoformat()
    assert bad() == {}


def test_a_foreign_deployment_is_told_once_whatever_its_tags_and_name(prefect: Server) -> None:
    prefect.add("evil")
    prefect.add("tagged", tags=["isa-cloud"])
    prefect.add("backup-nightly")  # of a declared name, and of another flow
    prefect.add("older", tags=["isa-cloud"], work_pool_name="another")
    prefect.add("somebody-elses", tags=[], work_pool_name="another")
    for number in range(450):  # behind the first pages
        prefect.add(f"a-{number}", tags=[], work_pool_name="another")
    found = bad()
    critical = {
        f"deployment '{name}' of flow 'evil'" for name in ("evil", "tagged", "backup-nightly")
    }
    assert {name for name, one in found.items() if one.check.critical} == critical
    assert found.keys() - critical == {"deployment 'older' of flow 'evil'"}
    assert all("prefect deployment delete --id" in one.check.hint for one in found.values())


def test_setup_brings_back_what_prefect_deploy_leaves(prefect: Server) -> None:
    terms = declared(SETTINGS)
    restore, nightly = prefect["restore-component"], prefect["backup-nightly"]
    restore["schedules"].append(a_schedule())
    restore["global_concurrency_limit"]["active"] = False
    restore |= {"path": "/tmp", "parameter_openapi_schema": {}, "enforce_parameter_schema": False}
    nightly["schedules"] += [a_schedule(id="more", slug="more", active=False)]
    for one in (restore, nightly):
        deployed.remove_undeclared_schedules(terms[one["name"]], one)
        deployed.complete(one["name"], one)
    assert bad() == {}


def test_a_schedule_that_an_operator_has_paused_is_not_made_again(prefect: Server) -> None:
    nightly = prefect["backup-nightly"]
    nightly["schedules"][0] |= {"active": False, "parameters": {"only": ["emqx"]}}
    deployed.remove_undeclared_schedules(declared(SETTINGS)["backup-nightly"], nightly)
    (schedule,) = nightly["schedules"]
    assert not schedule["active"]


# ---------------------------------------------------------------------- what a call may pass
def takes(name: str, given: dict[str, Any]) -> bool:
    """As `create_flow_run_from_deployment` asks (prefect/server/api/deployments.py, 3.8.8)."""
    (one,) = (one for one in DECLARED if one["name"] == name)
    try:
        validate(given, parameter_schema(one["entrypoint"]), raise_on_error=True)
    except ValidationError:
        return False
    return True


def required(deployment: dict[str, Any]) -> dict[str, Any]:
    """What a call has to say."""
    more = {"component": "nats", "confirm": "nats"}
    names = parameter_schema(deployment["entrypoint"])["required"]
    return {"environment": "sandbox"} | {k: v for k, v in more.items() if k in names}


@pytest.mark.parametrize("name", NAMES)
def test_a_parameter_that_the_flow_does_not_have_is_refused(name: str) -> None:
    (one,) = (one for one in DECLARED if one["name"] == name)
    assert takes(name, required(one))
    assert not takes(name, {**required(one), "onyl": ["redis"]})


def test_what_schedules_and_triggers_say_is_taken() -> None:
    for one in DECLARED:
        for more in (*one.get("schedules", ()), *one.get("triggers", ()), {}):
            fixed = defaults_of(one)
            given = required(one) | fixed | more.get("parameters", {})
            assert takes(one["name"], given), (one["name"], more)


def test_a_component_has_a_schedule_of_its_own_where_the_settings_have_a_cron() -> None:
    settings = load("sandbox", {"ISA_SCHEDULES__COMPONENTS__NATS": "*/10 * * * *"})
    (one,) = (o for o in registered(settings)["deployments"] if o["name"] == "backup-interval")
    assert [schedule["slug"] for schedule in one["schedules"]] == ["nats"]
    terms = declared(settings)["backup-interval"]
    assert terms["schedule nats"]["cron"] == "*/10 * * * *"
    assert terms["parameters of schedule nats"] == {"only": ["nats"]}
    assert terms["default of interval"] is True
    assert "schedule minio" not in terms
