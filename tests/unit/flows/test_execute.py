"""A run's process runs the declared flow of a declared deployment, and refuses everything else before importing it."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest
from prefect.client.schemas.objects import FlowRun

from errors import PermanentError
from flows import execute
from flows.execute import Refused, declared_flow, load, refuse_other_environment
from flows.parameters import validate
from tasks.server.api import deployments
from tests import hostile

DECLARED = {one["name"]: one for one in deployments()}


def live_of(name: str) -> dict[str, Any]:
    """A declared deployment as the server has it."""
    one = DECLARED[name]
    return {
        "name": name,
        "entrypoint": one["entrypoint"],
        "work_pool_name": one["work_pool"]["name"],
        "work_queue_name": one["work_pool"]["work_queue_name"],
        "pull_steps": [],
        "job_variables": {},
        "storage_document_id": None,
    }


class Api:
    """What the server answers about a run's deployment and flow."""

    def __init__(self) -> None:
        self.deployment = live_of("doctor")
        self.flow = "doctor"

    @contextmanager
    def connect(self) -> Iterator[Any]:
        def read_deployment(_: UUID) -> Any:
            return SimpleNamespace(model_dump=lambda mode: self.deployment)

        yield SimpleNamespace(
            read_deployment=read_deployment,
            read_flow=lambda _: SimpleNamespace(name=self.flow),
        )


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Api:
    made = Api()
    monkeypatch.setattr(execute, "connect", made.connect)
    return made


def a_run(**more: Any) -> FlowRun:
    return FlowRun(
        flow_id=uuid4(), **{"deployment_id": uuid4(), "work_queue_name": "default", **more}
    )


@pytest.mark.parametrize("name", DECLARED)
def test_the_flow_of_each_declared_deployment_is_run(name: str, api: Api) -> None:
    flow = load(DECLARED[name]["entrypoint"])
    api.deployment, api.flow = live_of(name), flow.name
    queue = DECLARED[name]["work_pool"]["work_queue_name"]
    assert declared_flow(a_run(work_queue_name=queue), [queue]) is flow


def test_a_run_without_a_deployment_is_refused(api: Api) -> None:
    with pytest.raises(Refused, match="no deployment"):
        declared_flow(a_run(deployment_id=None), ["default"])


def test_an_undeclared_deployment_is_refused(api: Api) -> None:
    api.deployment["name"] = "evil"
    with pytest.raises(Refused, match="declares no deployment 'evil'"):
        declared_flow(a_run(), ["default"])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("entrypoint", "evil.py:evil"),
        ("pull_steps", [{"prefect.deployments.steps.run_shell_script": {"script": "true"}}]),
        ("job_variables", {"command": "true"}),
        ("storage_document_id", "00000000-0000-0000-0000-000000000001"),
        ("work_pool_name", "theirs"),
        ("work_queue_name", "proofs"),
    ],
)
def test_a_declared_deployment_that_was_changed_is_refused(key: str, value: Any, api: Api) -> None:
    api.deployment[key] = value
    with pytest.raises(Refused):
        declared_flow(a_run(), ["default"])


def test_a_run_with_job_variables_is_refused(api: Api) -> None:
    with pytest.raises(Refused, match="the run sets job variables"):
        declared_flow(a_run(job_variables={"env": {"LD_PRELOAD": "x"}}), ["default"])


@pytest.mark.parametrize(
    ("queue", "served"), [("proofs", ["proofs"]), ("default", ["proofs"]), ("proofs", ["default"])]
)
def test_a_run_in_another_queue_is_refused(queue: str, served: list[str], api: Api) -> None:
    with pytest.raises(Refused, match="instead of 'default'"):
        declared_flow(a_run(work_queue_name=queue), served)


def test_another_flow_under_a_declared_name_is_refused(api: Api) -> None:
    api.flow = "evil"
    with pytest.raises(Refused, match="its flow is 'evil' instead of 'doctor'"):
        declared_flow(a_run(), ["default"])


# Each is of a type, form or size that its flow does not take.
HOSTILE: list[tuple[str, dict[str, Any]]] = [
    ("doctor", {"environment": "../../etc/passwd"}),
    ("doctor", {"environment": "sandbox\n"}),
    ("doctor", {"environment": "-x"}),
    ("doctor", {"environment": {"$ref": {"block_document_id": str(uuid4())}}}),
    ("doctor", {"environment": "sandbox", "fix": "yes"}),
    ("doctor", {"environment": "sandbox", "fxi": True}),
    ("doctor", {}),
    ("backup-component", {"environment": "sandbox", "only": ["redis; reboot"]}),
    ("backup-component", {"environment": "sandbox", "slot": "2026-11-23\x1b[2J"}),
    ("backup-component", {"environment": "sandbox", "slot": "a" * 101}),
    ("verify-restores", {"environment": "sandbox", "backups": ["redis-../../x"]}),
    ("verify-restores", {"environment": "sandbox", "which": "everything"}),
    ("restore-component", {"environment": "sandbox", "confirm": "nats", "backup": "'; DROP"}),
    ("restore-component", {"environment": "sandbox", "confirm": "nats", "units": ["a" * 601]}),
    ("restore-component", {"environment": "sandbox", "confirm": "nats", "units": ["a\nb"]}),
    ("restore-component", {"environment": "sandbox", "confirm": "nats", "units": ["a\n"]}),
    ("restore-component", {"environment": "sandbox", "confirm": "nats", "units": ["\x1b[2J"]}),
    ("restore-component", {"environment": "sandbox", "confirm": "nats", "units": ["a\x9b"]}),
    ("deploy-platform", {"environment": "sandbox", "only": ["nats"] * 10}),
    ("backup-component", {"environment": "sandbox", "only": ["nats"] * 9}),
    ("verify-restores", {"environment": "sandbox", "only": ["nats"] * 9}),
    ("retention", {"environment": "sandbox", "components": ["nats"] * 9}),
    ("restore-component", {"environment": "sandbox", "confirm": "nats", "units": ["a\0"]}),
    ("restore-component", {"environment": "sandbox", "confirm": "nats", "units": ["a"] * 1001}),
    ("rebuild-component", {"environment": "sandbox", "component": "kube-system"}),
    ("rebuild-component", {"environment": "sandbox", "component": "nats", "restore": "$(id)"}),
    ("retention", {"environment": "sandbox", "components": ["*"]}),
]


@pytest.mark.parametrize(("name", "parameters"), HOSTILE)
def test_hostile_parameters_are_refused_and_not_repeated(
    name: str, parameters: dict[str, Any]
) -> None:
    with pytest.raises(PermanentError) as caught:
        validate(load(DECLARED[name]["entrypoint"]).fn, parameters)
    assert "parameter " in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "unit", ["database Größe", "collection " + "c" * 255, "stream app/a b", "顧客"]
)
def test_a_unit_that_an_engine_can_have_is_taken(unit: str) -> None:
    parameters = {"environment": "sandbox", "confirm": "nats", "units": [unit]}
    restore = load(DECLARED["restore-component"]["entrypoint"]).fn
    assert validate(restore, parameters)["units"] == [unit]


@hostile.each()
def test_a_hostile_name_is_no_environment_component_backup_or_slot(name: str) -> None:
    base = {"environment": "sandbox"}
    calls: list[tuple[str, dict[str, Any]]] = [
        *([] if hostile.KUBERNETES(name) else [("doctor", {"environment": name})]),
        ("deploy-platform", {**base, "only": [name]}),
        ("backup-component", {**base, "only": [name]}),
        ("verify-restores", {**base, "backups": [name]}),
        ("verify-restores", {**base, "which": name}),
        ("restore-component", {**base, "confirm": "nats", "backup": name}),
        ("rebuild-component", {**base, "component": name}),
        ("rebuild-component", {**base, "component": "nats", "restore": name}),
        ("rebuild-component", {**base, "component": "nats", "volumes": name}),
        ("retention", {**base, "components": [name]}),
    ]
    for deployment, parameters in calls:
        with pytest.raises(PermanentError):
            validate(load(DECLARED[deployment]["entrypoint"]).fn, parameters)


def test_what_commands_and_schedules_pass_is_taken() -> None:
    identity = "redis-20261123T010203Z-0a1b2c"
    good: list[tuple[str, dict[str, Any]]] = [
        ("doctor", {"environment": "production"}),
        ("backup-nightly", {"environment": "sandbox", "only": None, "slot": "2026-11-23"}),
        ("backup-component", {"environment": "sandbox", "only": ["redis"], "slot": ""}),
        ("verify-restores", {"environment": "sandbox", "backups": [identity], "which": "all"}),
        ("restore-component", {"environment": "sandbox", "confirm": "nats", "units": ["Ü ber/x"]}),
        ("rebuild-component", {"environment": "sandbox", "component": "nats", "restore": identity}),
    ]
    for name, parameters in good:
        function = load(DECLARED[name]["entrypoint"]).fn
        assert validate(function, parameters).items() >= parameters.items()


@pytest.mark.parametrize("named", ["sandbox", "staging"])
@pytest.mark.parametrize("own", ["production", ""])
def test_a_run_that_names_another_environment_than_its_workers_is_refused(
    named: str, own: str
) -> None:
    with pytest.raises(Refused, match=f"environment is '{named}', but this worker"):
        refuse_other_environment({"environment": named}, own)


def test_a_run_of_the_workers_own_environment_is_not_refused() -> None:
    refuse_other_environment({"environment": "staging"}, "staging")


def test_every_declared_flow_names_its_environment() -> None:
    for one in DECLARED.values():
        assert "environment" in inspect.signature(load(one["entrypoint"]).fn).parameters


def test_no_settings_are_read_for_a_run_of_another_environment(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    run = a_run(parameters={"environment": "sandbox"})
    monkeypatch.setenv("PREFECT__FLOW_RUN_ID", str(run.id))
    monkeypatch.setenv("ISA_ENV", "production")
    for name in ("clean_process", "install", "configure_from_env"):
        monkeypatch.setattr(execute, name, lambda: None)
    monkeypatch.setattr(execute, "handle_engine_signals", lambda _: nullcontext())
    monkeypatch.setattr(execute, "load_flow_run", lambda _: run)
    monkeypatch.setattr(execute, "run_flow", lambda *_, **__: pytest.fail("it was run"))
    monkeypatch.setattr(execute, "_refuse", lambda _, error: said.append(str(error)))
    execute.main(["default"])
    assert said == ["parameter environment is 'sandbox', but this worker serves 'production'"]
