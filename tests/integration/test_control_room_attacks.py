"""Who can call the Prefect API starts the declared flows, and nothing else, under a worker's account.

Every attack tries to write a file on the worker's machine. The attacker has the API's password, so the pool's job
template, the deployments and the runs are theirs to change.
"""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from prefect._internal.result_records import ResultRecord, ResultRecordMetadata
from prefect.filesystems import LocalFileSystem
from prefect.serializers import PickleSerializer
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings
from prefect.states import Completed
from prefect.workers.process import ProcessWorker

from config.loading import load
from sandbox.control_room import POOL, ControlRoom
from tasks.server.doctor import check_deployments

pytestmark = pytest.mark.integration

FINAL = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
SECONDS = 240.0  # a dozen processes start at the same time on two cores
REBUILD = (
    "rebuild-component"  # without a limit: runs of several attacks do not wait for one another
)
PARAMETERS = {
    REBUILD: {"environment": "sandbox", "component": "nats"},
    "restore-component": {"environment": "sandbox", "confirm": "nats"},
}


def login(room: ControlRoom) -> dict[Any, Any]:
    return {PREFECT_API_URL: room.api, PREFECT_API_AUTH_STRING: room.login}


def template(**fixed: Any) -> dict[str, Any]:
    """Prefect's own job template, which takes a command and variables from whoever starts a run."""
    made = ProcessWorker.get_default_base_job_template()
    made["job_configuration"].update(fixed)
    return {"base_job_template": made}


class Attacker:
    """A caller of the API.

    Attributes:
        room: whose API.
        directory: of files on the worker's machine, as an attacker may have served them from elsewhere.
        trace: the file that the attack writes.
    """

    def __init__(self, room: ControlRoom, directory: Path) -> None:
        self.room = room
        self.directory = directory
        self.trace = directory / "trace"

    @property
    def script(self) -> str:
        """A shell command that leaves the trace."""
        return f"touch {shlex.quote(str(self.trace))}"

    @property
    def step(self) -> dict[str, Any]:
        """A pull step that leaves it."""
        return {"prefect.deployments.steps.run_shell_script": {"script": self.script}}

    def flow_file(self) -> str:
        """Entrypoint of a flow that leaves it when it is imported."""
        file = self.directory / "evil.py"
        file.write_text(
            f"import pathlib\nfrom prefect import flow\npathlib.Path({str(self.trace)!r}).touch()\n"
            "@flow(name='evil')\ndef evil(environment: str = '') -> None: ...\n"
        )
        return f"{file}:evil"

    def call(self, method: str, path: str, body: Any = None) -> Any:
        answer = self.room.http.request(method, path, json=body)
        assert answer.is_success, answer.text
        return answer.json() if answer.content else None

    def declared(self, name: str = REBUILD) -> dict[str, Any]:
        flow = "backup-platform" if name.startswith("backup") else name
        found: dict[str, Any] = self.call("GET", f"/deployments/name/{flow}/{name}")
        return found

    def start(self, deployment: str, name: str = REBUILD, **body: Any) -> str:
        path = f"/deployments/{deployment}/create_flow_run"
        given = PARAMETERS.get(name, {"environment": "sandbox"})
        return str(self.call("POST", path, {"parameters": given, **body})["id"])

    def deployment(self, name: str, **more: Any) -> str:
        """A deployment of the attacker's own flow; gives its id."""
        flow = self.call("POST", "/flows/", {"name": "evil"})["id"]
        body = {
            "name": name,
            "flow_id": flow,
            "work_pool_name": POOL,
            "work_queue_name": "proofs",
            "path": str(self.directory),
            "entrypoint": "evil.py:evil",
            "enforce_parameter_schema": False,
            **more,
        }
        return str(self.call("POST", "/deployments/", body)["id"])

    def state(self, run: str) -> dict[str, Any]:
        return self.call("GET", f"/flow_runs/{run}")["state"]  # type: ignore[no-any-return]

    def end(self, run: str) -> dict[str, Any]:
        """Wait until a run is final, or something of the attack was executed; gives the run's state."""
        deadline = time.monotonic() + SECONDS
        while (state := self.state(run))["type"] not in FINAL and not self.trace.exists():
            assert time.monotonic() < deadline, state
            time.sleep(0.3)
        return state


def command(attacker: Attacker) -> str:
    return attacker.start(attacker.declared()["id"], job_variables={"command": attacker.script})


def python_path(attacker: Attacker) -> str:
    (attacker.directory / "sitecustomize.py").write_text(f"open({str(attacker.trace)!r}, 'w')")
    environ = {"PYTHONPATH": str(attacker.directory)}
    return attacker.start(attacker.declared()["id"], job_variables={"env": environ})


def library(attacker: Attacker) -> str:
    """The loader writes its trace to a file of that name: what LD_PRELOAD does needs a compiler."""
    environ = {"LD_DEBUG": "libs", "LD_DEBUG_OUTPUT": str(attacker.directory / "loader")}
    run = attacker.start(attacker.declared()["id"], job_variables={"env": environ})
    attacker.end(run)
    if list(attacker.directory.glob("loader.*")):
        attacker.trace.touch()
    return run


def settings_of_the_site(attacker: Attacker) -> str:
    """isa would run this helm instead of the installed one."""
    program = attacker.directory / "helm"
    program.write_text(f"#!/bin/sh\n{attacker.script}\n")
    program.chmod(0o755)
    environ = {"PATH": f"{attacker.directory}{os.pathsep}{os.environ['PATH']}"}
    return attacker.start(attacker.declared()["id"], job_variables={"env": environ})


def command_of_a_declared_deployment(attacker: Attacker) -> str:
    victim = attacker.declared("restore-component")["id"]
    attacker.call(
        "PATCH", f"/deployments/{victim}", {"job_variables": {"command": attacker.script}}
    )
    return attacker.start(victim, "restore-component")


def own_deployment(attacker: Attacker) -> str:
    attacker.flow_file()
    return attacker.start(attacker.deployment("evil"))


def pull_steps(attacker: Attacker) -> str:
    return attacker.start(attacker.deployment("evil-steps", pull_steps=[attacker.step]))


def pull_steps_of_a_declared_deployment(attacker: Attacker) -> str:
    found = attacker.declared("verify-restores")
    same = {key: found[key] for key in ("name", "flow_id", "entrypoint", "path", "tags")}
    attacker.deployment(**same, pull_steps=[attacker.step])  # the server replaces the declared one
    return attacker.start(found["id"], "verify-restores")


def changed_entrypoint(attacker: Attacker) -> str:
    victim = attacker.declared("deploy-platform")["id"]
    attacker.call("PATCH", f"/deployments/{victim}", {"entrypoint": attacker.flow_file()})
    return attacker.start(victim, "deploy-platform")


def another_queue(attacker: Attacker) -> str:
    return attacker.start(attacker.declared()["id"], work_queue_name="proofs")


def declared_name_of_another_flow(attacker: Attacker) -> str:
    """Of the declared name, entrypoint and queue, but not of the declared flow."""
    found = attacker.declared()
    same = {key: found[key] for key in ("name", "entrypoint")}
    return attacker.start(attacker.deployment(**same, work_queue_name="rebuilds"))


def parameters_that_refer_to_a_block(attacker: Attacker) -> str:
    """The server no longer checks them; Prefect's engine would load the block."""
    victim = attacker.declared("backup-component")["id"]
    unchecked = {"enforce_parameter_schema": False, "parameter_openapi_schema": {}}
    attacker.call("PATCH", f"/deployments/{victim}", unchecked)
    hostile = {"environment": {"$ref": {"block_document_id": str(uuid4())}}}
    return attacker.start(victim, "backup-component", parameters=hostile)


def settings_of_another_environment(attacker: Attacker) -> str:
    elsewhere = {"environment": "staging", "component": "nats"}
    return attacker.start(attacker.declared()["id"], parameters=elsewhere)


REFUSED: list[Callable[[Attacker], str]] = [
    settings_of_another_environment,
    command,
    python_path,
    settings_of_the_site,
    command_of_a_declared_deployment,
    own_deployment,
    pull_steps,
    pull_steps_of_a_declared_deployment,
    changed_entrypoint,
    another_queue,
    declared_name_of_another_flow,
    parameters_that_refer_to_a_block,
    library,
]
each_attack = pytest.mark.parametrize("attack", REFUSED, ids=lambda attack: attack.__name__)


@pytest.fixture(scope="module")
def attacks(
    room: ControlRoom, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[Attacker, str]]:
    """All of them at the same time, with Prefect's own template in the pool: attacker and run of each."""
    made = {}
    for attack in REFUSED:
        attacker = Attacker(room, tmp_path_factory.mktemp(attack.__name__))
        attacker.call("PATCH", f"/work_pools/{POOL}", template())
        made[attack.__name__] = (attacker, attack(attacker))
    return made


@each_attack
def test_a_run_that_asks_for_other_code_is_refused(
    attack: Callable[[Attacker], str], attacks: dict[str, tuple[Attacker, str]]
) -> None:
    attacker, run = attacks[attack.__name__]
    state = attacker.end(run)
    assert not attacker.trace.exists()
    assert state["type"] == "FAILED"
    assert "refused, nothing was run" in state["message"]


def test_a_command_in_the_pools_template_is_not_executed(
    room: ControlRoom, tmp_path: Path, attacks: object
) -> None:
    attacker = Attacker(room, tmp_path)
    attacker.call("PATCH", f"/work_pools/{POOL}", template(command=attacker.script))
    state = attacker.end(attacker.start(attacker.declared()["id"]))
    assert not attacker.trace.exists()
    assert state["type"] == "FAILED"
    # the declared flow was run, and there is no platform here
    assert "isa deploy first" in state["message"]


def test_a_result_that_a_caller_stored_is_not_unpickled(room: ControlRoom, tmp_path: Path) -> None:
    """The run is called completed while its process starts; Prefect's engine then loads the run's result."""
    attacker = Attacker(room, tmp_path)

    class Pickled:
        def __reduce__(self) -> Any:
            return os.system, (attacker.script,)

    with temporary_settings(login(room)):
        block = LocalFileSystem(basepath=str(tmp_path)).save("evil", overwrite=True)
    assert isinstance(block, UUID)
    metadata = ResultRecordMetadata(
        storage_key="result", serializer=PickleSerializer(), storage_block_id=block
    )
    (tmp_path / "result").write_bytes(ResultRecord(result=Pickled(), metadata=metadata).serialize())
    state = Completed(data=metadata).model_dump(mode="json", include={"type", "name", "data"})
    run = attacker.start(attacker.declared("doctor")["id"], "doctor")
    until(lambda: bool(processes(run)), "its process has started")
    attacker.call("POST", f"/flow_runs/{run}/set_state", {"state": state, "force": True})
    until(lambda: not processes(run), "its process has ended")
    assert not attacker.trace.exists()


@pytest.mark.parametrize(
    "parameters",
    [
        {"environment": "../production", "component": "nats"},
        {"environment": "sandbox", "component": "nats; reboot"},
        {"environment": "sandbox", "component": "nats", "restore": "$(id)"},
        {"environment": "sandbox", "component": "nats", "what": "else"},
    ],
)
def test_the_server_refuses_hostile_parameters(
    parameters: dict[str, Any], room: ControlRoom
) -> None:
    found = Attacker(room, Path()).declared()["id"]
    path = f"/deployments/{found}/create_flow_run"
    assert room.http.post(path, json={"parameters": parameters}).status_code == 409


def change_what_runs_do(attacker: Attacker) -> None:
    """Nothing that a worker refuses: other parameters, at other times, as many at once as one likes."""
    named = {
        name: attacker.declared(name)
        for name in (
            "backup-nightly",
            "restore-component",
            "retention",
            "doctor",
            "deploy-platform",
        )
    }
    path = {name: f"/deployments/{one['id']}" for name, one in named.items()}
    attacker.call(
        "PATCH",
        path["backup-nightly"],
        {"parameters": {"environment": "sandbox", "only": ["emqx"]}},
    )
    hourly = {"cron": "0 * * * *", "timezone": "UTC"}
    unsafe = {"active": True, "schedule": hourly, "parameters": {"safety_backup": False}}
    attacker.call("POST", f"{path['restore-component']}/schedules", [unsafe])
    for name, body in (
        ("retention", {"parameters": {"apply": True}}),
        ("doctor", {"active": False}),
    ):
        (schedule,) = named[name]["schedules"]
        attacker.call("PATCH", f"{path[name]}/schedules/{schedule['id']}", body)
    attacker.call("PATCH", path["deploy-platform"], {"concurrency_limit": None})
    limit = named["backup-nightly"]["global_concurrency_limit"]["id"]
    attacker.call("PATCH", f"/v2/concurrency_limits/{limit}", {"active": False})
    attacker.deployment("evil-tagged", tags=["isa-cloud"])


def test_the_doctor_finds_what_was_changed_and_setup_repairs_it(
    room: ControlRoom, attacks: object
) -> None:
    change_what_runs_do(Attacker(room, Path()))
    with pytest.MonkeyPatch.context() as environ, temporary_settings(login(room)):
        for name, value in room.environ().items():
            environ.setenv(name, value)
        settings = load("sandbox")
        found = {one.check.name: one for one in check_deployments(settings) if not one.check.ok}
        hints = {name: one.check.hint for name, one in found.items()}
        for name, words in {
            f"job template of {POOL}": "was changed",
            "declaration of verify-restores": "pull steps",
            "declaration of deploy-platform": "concurrency limit is null instead of 1",
            "declaration of backup-component": "parameters are validated is false instead of true",
            "declaration of backup-nightly": 'default of only is ["emqx"] and not declared',
            "declaration of restore-component": '{"safety_backup": false} and not declared',
            "declaration of retention": 'parameters of schedule daily is {"apply": true} instead of',
        }.items():
            assert words in hints[name]
        foreign = {
            f"deployment '{name}' of flow 'evil'"
            for name in ("evil", "evil-steps", "evil-tagged", REBUILD)
        }
        assert found.keys() >= foreign
        paused = "declaration of doctor"
        assert [name for name, one in found.items() if not one.check.critical] == [paused]
        repair = next(one.fix for one in found.values() if one.fix)
        repair()
        left = {one.check.name for one in check_deployments(settings) if not one.check.ok}
        assert left == {*foreign, paused}  # what somebody has paused stays so


def test_the_server_refuses_job_variables_with_the_declared_template(
    room: ControlRoom, attacks: object
) -> None:
    found = Attacker(room, Path()).declared("restore-component")["id"]
    body = {"parameters": PARAMETERS["restore-component"], "job_variables": {"command": "true"}}
    answer = room.http.post(f"/deployments/{found}/create_flow_run", json=body)
    assert answer.status_code in (409, 422), answer.text


def processes(run: str) -> list[Path]:
    """Of a run, by the variable that its worker gives it."""
    mark = f"PREFECT__FLOW_RUN_ID={run}".encode()
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if mark in (entry / "environ").read_bytes():
                found.append(entry)
    return found


def until(so: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + SECONDS
    while not so():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)
