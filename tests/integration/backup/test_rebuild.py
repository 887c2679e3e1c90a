"""A component is made anew with all that it held, whatever interrupts it, and a rebuild that was wrong is taken back.

All commands run as the service account isa-rebuild.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cluster.pods import volumes
from components import COMPONENTS
from operations.health.freshness import FRESH, read_freshness
from tests.contract import checked
from tests.losses import LOSSES

from ..accounts import environ_of, log_in
from .conftest import ISA, Backups, until

pytestmark = pytest.mark.integration

APPROVED = ("--local", "--approver", "Ottilie Engineer", "--ticket", "CHG-1815")
KILL = """
import os, signal, sys
from cli.main import main
from operations.rebuild.steps import RebuildSteps

step, when = sys.argv[1], sys.argv[2]
real = RebuildSteps.do

def do(self, name):
    if name == step and when == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    result = real(self, name)
    if name == step:
        os.kill(os.getpid(), signal.SIGKILL)
    return result

RebuildSteps.do = do
sys.argv = ["isa", *sys.argv[3:]]
main()
"""


@dataclass
class Rebuilder:
    """Who rebuilds.

    Attributes:
        backups: the platform and its sets.
        kubeconfig: of isa-rebuild.
    """

    backups: Backups
    kubeconfig: Path

    @property
    def environ(self) -> dict[str, str]:
        return environ_of(self.backups.sandbox, self.kubeconfig)

    def run(self, *words: str, stdin: str = "", **environ: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*words],
            env={**self.environ, **environ},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=500,
            check=False,
        )

    def isa(
        self, command: str, *arguments: str, code: int = 0, stdin: str = "", **environ: str
    ) -> Any:
        done = self.run(ISA, command, *arguments, "--json", stdin=stdin, **environ)
        assert done.returncode == code, done.stderr + done.stdout
        return checked([command, *arguments], done.stdout, done.stderr)

    def ready(self, component: str) -> None:
        self.backups.live.until(component, lambda found: found.state == "ready", "ready")

    def proven(self, component: str) -> None:
        """Make sure that a restore of it was proven lately."""
        if read_freshness(self.backups.environment, [component])[0].state == FRESH:
            return
        self.backups.isa("backup", component, "--local")
        said = self.isa("verify", component, "--local")
        assert [one["verdict"] for one in said["proofs"]] == ["pass"], said

    def aside(self, component: str) -> list[volumes.Volume]:
        return volumes.aside(self.backups.environment.kube, component)

    def purge(self, component: str) -> list[str]:
        """Let all its old volumes go whose successors were compared, and wait for it; gives their names."""
        said = self.isa("rebuild", "purge", component, ISA_REBUILD__KEEP_VOLUMES_DAYS="0")
        until(lambda: not self.aside(component), "the old volumes are gone")
        return sorted(said["purged_volumes"])

    def secrets(self) -> dict[str, Any]:
        """What clients know: every password."""
        namespace = self.backups.environment.settings.kubernetes.namespace
        found = self.backups.environment.kube.list("v1", "Secret", namespace)
        return {
            one["metadata"]["name"]: one["data"] for one in found if one.get("type") == "Opaque"
        }


@pytest.fixture(scope="module")
def rebuilder(backups: Backups, report: Any, tmp_path_factory: pytest.TempPathFactory) -> Rebuilder:
    account = log_in(backups.sandbox, tmp_path_factory.mktemp("rebuild"), "isa-rebuild")
    assert account.kubeconfig is not None
    made = Rebuilder(backups, account.kubeconfig)
    for (
        component
    ) in COMPONENTS:  # what rebuilds of other tests have put aside would be counted here
        if made.aside(component):
            made.purge(component)
    return made


# One engine with a primary, one with slots; NATS, without a fence, goes by the control room; all in `make soak`.
@pytest.mark.parametrize(
    "component",
    [
        pytest.param(one, marks=[] if one in ("postgresql", "redis") else pytest.mark.soak)
        for one in COMPONENTS
    ],
)
def test_a_component_comes_back_with_all_that_it_held(component: str, rebuilder: Rebuilder) -> None:
    rebuilder.proven(component)
    passwords = rebuilder.secrets()
    said = rebuilder.isa("rebuild", component, *APPROVED)
    assert said["state"] == "completed", said
    assert [step["outcome"] for step in said["steps"]] == ["done"] * len(said["steps"])
    assert "compared and equal" in next(
        s["reason"] for s in said["steps"] if s["name"] == "restore"
    )
    assert said["retained_volumes"]
    assert rebuilder.secrets() == passwords
    rebuilder.ready(component)
    # what clients may do afterwards is what they could before: the fence is down
    with rebuilder.backups.access() as access:
        LOSSES[component][1](access)()
    # the old volumes stay until their time is over, and go then
    assert rebuilder.isa("rebuild", "purge", component)["purged_volumes"] == []
    assert rebuilder.purge(component) == sorted(said["retained_volumes"])


@pytest.mark.parametrize(
    ("step", "when"),
    [
        pytest.param("uninstall", "before", marks=pytest.mark.soak),
        ("uninstall", "after"),
        pytest.param("volumes", "after", marks=pytest.mark.soak),
        ("install", "after"),
    ],
)
def test_what_was_killed_goes_on_by_the_same_call(
    step: str, when: str, rebuilder: Rebuilder
) -> None:
    rebuilder.proven("nats")
    words = (step, when, "rebuild", "nats", *APPROVED)
    assert rebuilder.run(sys.executable, "-c", KILL, *words).returncode == -9
    said = rebuilder.isa("rebuild", "nats", *APPROVED)
    assert said["state"] == "completed", said
    # no volume was put aside twice
    assert len({one.rebuild for one in rebuilder.aside("nats")}) == 1
    # the engine that was installed empty left no set
    newest = rebuilder.backups.environment.catalogue(["nats"]).latest("nats")
    assert newest is not None
    assert newest.id == said["backup"]
    rebuilder.purge("nats")


@pytest.mark.parametrize("component", ["postgresql", pytest.param("nats", marks=pytest.mark.soak)])
def test_a_rebuild_that_was_wrong_is_taken_back(component: str, rebuilder: Rebuilder) -> None:
    rebuilder.proven(component)
    said = rebuilder.isa("rebuild", component, "--restore", "none", *APPROVED)
    assert said["state"] == "completed", said
    kept = rebuilder.isa("rebuild", "purge", component, ISA_REBUILD__KEEP_VOLUMES_DAYS="0")
    assert kept["purged_volumes"] == []  # nothing that was compared has taken their place
    back = rebuilder.isa("rebuild", "undo", component, stdin=f"{component}\n")
    assert sorted(back["returned_volumes"]) == sorted(said["retained_volumes"])
    assert rebuilder.aside(component) == []
    rebuilder.ready(component)
    with rebuilder.backups.access() as access:  # its sample data are there, and can be written
        LOSSES[component][1](access)()


def test_old_volumes_may_stay_in_place(rebuilder: Rebuilder) -> None:
    rebuilder.proven("redis")
    said = rebuilder.isa("rebuild", "redis", "--volumes", "keep", *APPROVED)
    assert [one["name"] for one in said["steps"]] == ["backup", "proof", "uninstall", "install"]
    assert said["retained_volumes"] == []
    rebuilder.ready("redis")
    with rebuilder.backups.access() as access:
        LOSSES["redis"][1](access)()


def test_what_is_in_the_way_is_said_and_nothing_changes(rebuilder: Rebuilder) -> None:
    rebuilder.backups.isa("backup", "nats", "--local")
    unproven = rebuilder.backups.manifest("nats").id
    plan = rebuilder.isa("rebuild", "nats", "--restore", unproven, "--plan")
    assert any("no restore of" in words for words in plan["blocked"])
    before = rebuilder.backups.live.pod("nats-0")["metadata"]["uid"]
    said = rebuilder.isa("rebuild", "nats", "--restore", unproven, *APPROVED, code=1)
    assert (said["state"], "nothing was changed" in said["message"]) == ("failed", True)
    assert rebuilder.backups.live.pod("nats-0")["metadata"]["uid"] == before
    for words in (("mysql",), ("nats", "--restore", "fresh", "--no-final-backup")):
        assert (
            "nothing has been changed"
            in rebuilder.isa("rebuild", *words, *APPROVED, code=2)["error"]
        )
