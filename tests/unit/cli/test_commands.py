"""What a command asks for, what it prints of the answer, and how it exits."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest

from archive.evidence.verdicts import Proof
from archive.retention.garbage import Garbage
from archive.retention.locks import Extension
from archive.retention.policy import Verdict
from cli.main import run
from cli.printing.failures import Reporter
from components.base import Check, Role
from operations.backup.component import BackupResult
from operations.backup.nightly import BackupLine, BackupReport
from operations.backup.retention import RetentionPlan
from operations.deploy.plan import UNCHANGED, UPGRADE, NodePlan, Plan
from operations.deploy.run import DeployReport
from operations.health.findings import Finding
from operations.health.freshness import FRESH, STALE, Freshness
from operations.rebuild.plan import RebuildPlan
from operations.rebuild.report import RebuildReport
from operations.restore.plan import Replacement, RestorePlan
from operations.restore.report import RestoreLine, RestoreReport
from operations.runner.context import RunContext
from operations.runner.progress import DONE, NodeProgress, as_rows
from operations.runner.walk import NodeResult
from operations.state.rebuild_state import Policy
from operations.verify.proofs import ProofLine, ProofReport, ProofResult
from tasks.server.notifications import Sent
from tasks.server.runs import Ended, Run

from ..archive.test_retention import a_set

RUN = Run(UUID("9d0f0c3e-0000-4000-8000-000000000001"), "calm-otter", "https://ui/runs/1")
SET = "redis-20261123T010000Z-abcdef"
AT = datetime(2026, 11, 23, 1, tzinfo=UTC)


@dataclass
class World:
    """An environment behind the commands.

    Attributes:
        ended: how a run of the Prefect server ends.
        asked: what `follow` and `start_run` were given; what use cases of this process were.
        answered: approvals.
        catalogue: of the bucket.
    """

    ended: Ended = field(default_factory=lambda: Ended("completed", 61.25, [], "all well", "id"))
    asked: list[Any] = field(default_factory=list)
    answered: list[Any] = field(default_factory=list)
    rows: list[NodeProgress] = field(default_factory=list)
    patches: pytest.MonkeyPatch = field(default_factory=pytest.MonkeyPatch)
    capsys: Any = None

    def start_run(self, deployment: str, parameters: Any, *, idempotency_key: str | None) -> Run:
        self.asked.append((deployment, parameters, idempotency_key))
        return RUN

    def follow(self, run: Run, key: str, show: Any, warn: Any, paused: Any) -> Ended:
        assert run == RUN
        self.asked[-1] = (*self.asked[-1][:2], key, self.asked[-1][2])
        show(as_rows(self.rows))
        warn("no worker takes it")
        paused(run)
        return self.ended

    def is_given(self, where: str, answer: Any) -> None:
        """Have a use case of this process answer, and keep what it was asked for."""

        def use(*args: Any, **more: Any) -> Any:
            more.pop("start", None)
            given = list(args[1:])
            for context in [one for one in given if isinstance(one, RunContext)]:
                context.publish(self.rows)
                given.remove(context)
                more["run"] = context.who
            self.asked.append((tuple(given), more))
            return answer

        self.patches.setattr(where, use)

    def isa(self, command: str) -> tuple[int, list[str], list[str]]:
        """Exit code, lines of standard output and of standard error, without spaces at their ends."""
        arguments = [*command.split(), "--env", "sandbox"]
        if command.startswith(("approve", "refuse")):
            arguments = command.split()
        code = run(arguments, Reporter.of(arguments))
        printed = self.capsys.readouterr()
        out, err = (
            [re.sub(r" {2,}", "  ", line.rstrip()) for line in text.splitlines()]
            for text in printed
        )
        return code, out, err


def noting(asked: list[Any], answer: Any) -> Callable[..., Any]:
    """A use case that notes what it is asked for, but for its environment."""

    def use(_: Any, *given: Any) -> Any:
        asked.append(given)
        return answer

    return use


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[World]:
    from config.loading import load

    made = World(patches=monkeypatch, capsys=capsys)
    settings = load("sandbox", {})
    opened = SimpleNamespace(settings=settings, catalogue=lambda names: made.catalogue)  # type: ignore[attr-defined]
    opened.open_store = lambda: opened
    for where, what in {
        "tasks.server.runs.start_run": made.start_run,
        "tasks.server.runs.follow": made.follow,
        "tasks.server.runs.answer": lambda *answer: made.answered.append(answer),
        "operations.environment.environment.Environment.open_releases": lambda _: opened,
        "operations.environment.environment.Environment.open_store": lambda _: opened,
        "operations.verify.proofs.choose": noting(made.asked, (SET,)),
        "operations.verify.proofs.week": lambda: "2026-W48",
        "cluster.lease.identity": lambda: "ada@laptop",
    }.items():  # fmt: skip
        monkeypatch.setattr(where, what)
    yield made


# ---------------------------------------------------------------------- what the Prefect server is asked for
@pytest.mark.parametrize(
    ("command", "asked"),
    [
        (
            "deploy",
            ("deploy-platform/deploy-platform", {"environment": "sandbox", "only": None}, "deploy-sandbox", None),
        ),
        (
            "deploy --only redis --only nats --idempotency-key k",
            (
                "deploy-platform/deploy-platform", {"environment": "sandbox", "only": ["redis", "nats"]},
                "deploy-sandbox", "k",
            ),
        ),
        (
            "backup",
            (
                "backup-platform/backup-nightly", {"environment": "sandbox", "only": None, "slot": ""},
                "backup-sandbox", None,
            ),
        ),
        (
            "backup redis nats --slot 2026-01-01",
            (
                "backup-platform/backup-component",
                {"environment": "sandbox", "only": ["redis", "nats"], "slot": "2026-01-01"},
                "backup-sandbox", "backup-sandbox-2026-01-01-nats-redis",
            ),
        ),
        (
            "verify",
            (
                "verify-restores/verify-restores",
                {"environment": "sandbox", "backups": None, "only": None, "which": "latest", "at": ""},
                "verify-sandbox", None,
            ),
        ),
        (
            f"verify {SET} nats --due",
            (
                "verify-restores/verify-restores",
                {"environment": "sandbox", "backups": [SET], "only": ["nats"], "which": "due", "at": ""},
                "verify-sandbox", None,
            ),
        ),
        (
            f"restore {SET} --yes --unit a --unit b --other-cluster",
            (
                "restore-component/restore-component",
                {
                    "environment": "sandbox", "backup": SET, "units": ["a", "b"], "other_cluster": True,
                    "safety_backup": True, "at": "", "confirm": "redis",
                },
                "restore-sandbox", None,
            ),
        ),
        (
            "restore --all --yes --no-safety-backup",
            (
                "restore-component/restore-component",
                {
                    "environment": "sandbox", "backup": None, "units": None, "other_cluster": False,
                    "safety_backup": False, "at": "", "confirm": "sandbox",
                },
                "restore-sandbox", None,
            ),
        ),
        (
            "rebuild redis",
            (
                "rebuild-component/rebuild-component",
                {
                    "environment": "sandbox", "component": "redis", "volumes": "new", "restore": "fresh",
                    "final_backup": True,
                },
                "rebuild-sandbox", None,
            ),
        ),
        (
            "rebuild redis --volumes keep",
            (
                "rebuild-component/rebuild-component",
                {
                    "environment": "sandbox", "component": "redis", "volumes": "keep", "restore": "none",
                    "final_backup": True,
                },
                "rebuild-sandbox", None,
            ),
        ),
    ],
)  # fmt: skip
def test_a_run_gets_what_the_command_line_says(command: str, asked: Any, plans: World) -> None:
    code, _out, err = plans.isa(command)
    assert code == 0, err
    assert plans.asked == [asked]
    assert "flow run calm-otter: https://ui/runs/1" in err
    assert "no worker takes it" in err


@pytest.fixture
def plans(world: World) -> World:
    """The environment, with plans of a restore and a rebuild."""
    world.patches.setattr("operations.restore.plan.plans_of", lambda *_, **__: [RESTORE_PLAN])
    world.patches.setattr("operations.rebuild.plan.plan_rebuild", lambda *_: REBUILD_PLAN)
    return world


RESTORE_PLAN = RestorePlan(
    a_set(0, id=SET, begun=AT, ended=AT), (), (Replacement("all keys", 2048),), ("globals",), "they wait", False,
    ("there is a newer set",), took="the last backup took 3 s",
)  # fmt: skip
REBUILD_PLAN = RebuildPlan(
    Policy("redis"), {"redis-cluster": "redis-cluster-13, revision 3", "extra": ""}, {"data-0": "8Gi"}, ("all keys",),
    "", "they cannot write", (), ("it takes long",), ("its proof is stale",),
)  # fmt: skip


@pytest.mark.parametrize(
    "command", ["deploy", "backup", "verify", f"restore {SET} --yes", "rebuild redis"]
)
@pytest.mark.parametrize(
    ("state", "code"), [("completed", 0), ("failed", 1), ("crashed", 1), ("cancelled", 1)]
)
def test_a_run_that_did_not_complete_exits_1(
    command: str, state: str, code: int, plans: World
) -> None:
    plans.ended = Ended(state, 1.0, [], "how it ended", "id")
    found, out, _ = plans.isa(command)
    assert found == code
    assert out[-1] == "how it ended"


# ---------------------------------------------------------------------- in this process
def test_a_deploy_here_is_told_who_runs_it(world: World) -> None:
    report = DeployReport(61.25, (NodeResult("redis", "upgraded", 3.0),))
    world.is_given("operations.deploy.run.run_deploy", report)
    world.rows = [NodeProgress("redis", "gate", note="2 of 6")]
    code, out, err = world.isa("deploy --local --only redis")
    assert code == 0
    assert world.asked == [((), {"only": ("redis",), "run": "isa deploy --local as ada@laptop"})]
    assert err == ["redis  gate  0.0 s  2 of 6"]
    assert out == [
        "Deploy completed in 61.2 s", "node  state  seconds  note", "redis  upgraded  3.0",
        "1 upgraded in 61.2 s",
    ]  # fmt: skip


def test_a_blocked_deploy_names_what_blocks_it(world: World) -> None:
    report = DeployReport(1.0, (NodeResult("redis", "failed", 3.0, "it broke"),), ("quota: small",))
    world.is_given("operations.deploy.run.run_deploy", report)
    code, out, _ = world.isa("deploy --local")
    assert code == 1
    assert "redis  failed  3.0  it broke" in out
    assert "preflight: quota: small" in out
    assert world.asked == [((), {"only": (), "run": "isa deploy --local as ada@laptop"})]


def test_a_backup_here_shows_each_set(world: World) -> None:
    result = BackupResult("redis", "partial", SET, 2048, 1024, 2.5, "k", "shard 2")
    world.is_given("operations.backup.nightly.run_backups", BackupReport(9.0, (result,)))
    code, out, _ = world.isa("backup redis --local --slot before-upgrade")
    assert code == 1
    assert world.asked == [
        ((), {"only": ("redis",), "slot": "before-upgrade", "run": "isa backup --local as ada@laptop"})
    ]  # fmt: skip
    assert out[:3] == [
        "Backup failed in 9.0 s",
        "component  outcome  read  stored  seconds  backup  reason",
        f"redis  partial  2 KiB  1 KiB  2.5  {SET}  shard 2",
    ]


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        ("verify postgresql --at yesterday", "'yesterday' is not a point"),
        ("verify postgresql --at 2026-11-29T17:59:30", "is not a point"),
        ("verify redis --at 2026-11-29T17:59:30Z", "only postgresql can be recovered to a point"),
        ("verify --at 0/3000028", "only postgresql can be recovered to a point"),
    ],
)
def test_a_wrong_point_is_refused_before_anything_is_asked(
    world: World, words: str, fault: str
) -> None:
    code, _, err = world.isa(words)
    assert code == 2
    assert fault in " ".join(err)
    assert world.asked == []


def test_a_proof_here_is_of_the_sets_that_are_chosen(world: World) -> None:
    result = ProofResult(SET, "redis", "pass", "L4", 3, 2.5, "restore verified", "valkey 9")
    world.is_given("operations.verify.proofs.run_proofs", ProofReport(9.0, (result,)))
    code, out, _ = world.isa(f"verify {SET} nats --sample --local")
    assert code == 0
    assert world.asked == [
        ((SET,), ("nats",), "sample", "2026-W48", ""),
        (((SET,),), {"run": "isa verify --local as ada@laptop"}),
    ]
    assert out[:3] == [
        "Verification completed in 9.0 s",
        "component  verdict  level  seconds  restored into  backup  finding",
        f"redis  pass  L4  2.5  valkey 9  {SET}  restore verified",
    ]


def test_without_a_set_nothing_is_proven(world: World) -> None:
    world.is_given("operations.verify.proofs.run_proofs", ProofReport(0.0, ()))
    code, out, _ = world.isa("verify --local")
    assert code == 0
    assert out[0] == "This backup does not exist; nothing was verified."


@pytest.mark.parametrize(("more", "safety"), [("", True), (" --no-safety-backup", False)])
def test_a_restore_here_says_what_it_replaces_and_what_became_of_it(
    more: str, safety: bool, plans: World
) -> None:
    report = RestoreReport(SET, "redis", "restored", safety="redis-before", kept=["old data"])
    plans.is_given("operations.restore.restore.run_restores", [report])
    code, out, err = plans.isa(f"restore {SET} --yes --local{more}")
    assert code == 0
    ((args, given),) = plans.asked
    assert args == ([RESTORE_PLAN],)
    assert given == {"run": "isa restore --local as ada@laptop", "safety": safety}
    shown = out + err
    assert "redis: back to 2026-11-23 01:00 UTC" in shown  # its id is on the next line
    assert "all keys  2 KiB  replaced" in shown
    assert "globals  left as it is" in shown
    assert "writers: they wait" in shown
    words = "current data is backed up first" if safety else "no safety backup"
    assert f"{words}; verified: no" in shown
    assert "times: the last backup took 3 s" in shown
    assert "! there is a newer set" in shown
    assert any(
        re.fullmatch(r"redis  restored  \d+\.\d  redis-before  old data", one) for one in out
    )


def test_a_restore_asks_for_the_name_of_what_it_replaces(plans: World) -> None:
    asked: list[tuple[Any, ...]] = []
    plans.patches.setattr(
        "click.prompt", lambda words, type, **_: asked.append((words, type.choices))
    )
    plans.isa(f"restore {SET}")
    plans.isa("restore --all")
    assert [(words, list(choices)) for words, choices in asked] == [
        ("Type redis to replace it", ["redis"]),
        ("Type sandbox to replace it", ["sandbox"]),
    ]


@pytest.mark.parametrize("command", ["restore", f"restore {SET} --all", "restore --all --unit a"])
def test_a_restore_of_what_is_not_named_is_wrong_usage(command: str, plans: World) -> None:
    assert plans.isa(f"{command} --yes")[0] == 2
    assert plans.asked == []


def test_a_plan_of_a_restore_replaces_nothing(plans: World) -> None:
    assert plans.isa(f"restore {SET} --plan")[0] == 0
    assert plans.asked == []


def test_a_rebuild_here_needs_somebody_who_approves_it(plans: World) -> None:
    assert plans.isa("rebuild redis --local")[0] == 2
    steps = (NodeResult("install", "done", 1.0),)
    report = RebuildReport("redis", "rebuild-1", 9.0, steps, SET, ("pv-1",), True)
    plans.is_given("operations.rebuild.rebuild.run_rebuild", report)
    code, out, err = plans.isa("rebuild redis --local --approver Ada --ticket T-1")
    assert code == 0
    ((args, given),) = plans.asked
    assert args[-1] == REBUILD_PLAN
    assert given == {"run": "isa rebuild --local as ada@laptop, approved by Ada (T-1)"}
    assert out == ["redis rebuilt in 9.0 s; 1 old volumes are retained"]
    assert f"Rebuild of redis: volumes new, restore fresh (plan {REBUILD_PLAN.digest})" in err
    for line in (
        "redis-cluster  redis-cluster-13, revision 3  installed again",
        "extra  not installed  installed again",
        "data-0  8Gi  kept aside",
        "last proof: none",
        "writers: they cannot write",
        "! it takes long",
        "✗ blocked by: its proof is stale",
    ):
        assert line in err


@pytest.mark.parametrize(
    "command",
    [
        "rebuild redis --approver Ada",
        "rebuild redis --ticket T-1",
        "rebuild redis --undo",
        "rebuild undo redis --plan",
    ],
)
def test_options_that_do_not_go_together_are_wrong_usage(command: str, plans: World) -> None:
    assert plans.isa(command)[0] == 2
    assert plans.asked == []


def test_a_rebuild_by_the_server_is_approved_by_whom_the_command_names(plans: World) -> None:
    plans.isa("rebuild redis --approver Ada --ticket T-1")
    assert plans.answered == [
        (str(RUN.id), {"decision": "approve", "name": "Ada", "ticket": "T-1"})
    ]


def test_a_rebuild_that_waits_says_how_it_is_approved(plans: World) -> None:
    _, _, err = plans.isa("rebuild redis")
    assert plans.answered == []
    assert "it waits for an approval: https://ui/runs/1" in err
    assert f"or: isa approve {RUN.id} --name NAME --ticket TICKET" in err


@pytest.mark.parametrize(
    ("decision", "words"), [("approve", "approved"), ("refuse", "refused; nothing is changed")]
)
def test_an_answer_is_given_to_its_run(decision: str, words: str, world: World) -> None:
    _, out, _ = world.isa(f"{decision} {RUN.id} --name Ada --ticket T-1")
    assert world.answered == [(str(RUN.id), {"decision": decision, "name": "Ada", "ticket": "T-1"})]
    assert out == [words]


# ---------------------------------------------------------------------- tables of a run without a report
@pytest.mark.parametrize(
    ("command", "row", "line"),
    [
        (
            "backup",
            BackupLine("redis", DONE, "partial", 2.5, "shard 2", id=SET, bytes_read=2048, bytes_stored=1024),
            f"redis  partial  2 KiB  1 KiB  2.5  {SET}  shard 2",
        ),
        (
            "backup",
            BackupLine("redis", DONE, "complete", 2.5, "2 KiB read", id=SET, bytes_read=2048),
            f"redis  complete  2 KiB  0 B  2.5  {SET}",
        ),
        ("backup", BackupLine("redis"), "redis  not-attempted  0 B  0 B  0.0"),
        (
            "verify",
            ProofLine(SET, DONE, "fail", 2.5, "bad", level="L1", compared=3, scratch="valkey"),
            f"redis  fail  L1  2.5  valkey  {SET}  bad",
        ),
        ("verify", ProofLine(SET), f"redis  not-attempted  0.0  {SET}"),
        (
            f"restore {SET} --yes",
            RestoreLine("redis", DONE, "different", 2.5, "strings", backup=SET, safety="before"),
            "redis  different  2.5  before  strings",
        ),
        (f"restore {SET} --yes", RestoreLine("redis", backup=SET), "redis  not-attempted  0.0"),
        ("deploy", NodeProgress("redis", DONE, "failed", 2.5, note="it broke"), "redis  failed  2.5  it broke"),
    ],
)  # fmt: skip
def test_a_run_that_left_no_report_is_told_by_its_table(
    command: str, row: NodeProgress, line: str, plans: World
) -> None:
    plans.ended = Ended("crashed", 61.0, as_rows([row]), "killed", "id")
    plans.rows = [row]
    code, out, _ = plans.isa(command)
    assert code == 1
    assert line in out
    assert out[-1] == "killed"


def test_a_change_of_a_node_is_one_line(world: World) -> None:
    world.rows = [
        NodeProgress("redis", DONE, "upgraded", 12.5, note="2 pods"), NodeProgress("nats", "waiting"),
    ]  # fmt: skip
    _, _, err = world.isa("deploy")
    assert "redis  upgraded  12.5 s  2 pods" in err
    assert not any(line.startswith("nats") for line in err)


# ---------------------------------------------------------------------- looks
@pytest.mark.parametrize(
    ("action", "findings", "code"),
    [
        (UNCHANGED, (), 0),
        (UPGRADE, (), 3),
        (UPGRADE, (Check("quota", False, "small"),), 1),
        (UPGRADE, (Check("store", False, "away", critical=False),), 3),
    ],
)
def test_a_plan_exits_by_what_it_found(
    action: str, findings: tuple[Check, ...], code: int, world: World
) -> None:
    plan = Plan((NodePlan("redis", action, ("image 8.2 → 8.4",)),), findings)
    world.patches.setattr("operations.deploy.run.checked_plan", lambda _: plan)
    found, out, _ = world.isa("plan")
    assert found == code
    assert out[:3] == ["Plan for sandbox", "node  action  why", f"redis  {action}  image 8.2 → 8.4"]
    verdicts = [(c.name, "blocks" if c.critical else "warning", c.hint) for c in findings]
    assert out[5:] == ["asked  verdict  finding", *("  ".join(v) for v in verdicts)]


@pytest.mark.parametrize(
    ("state", "missed", "code"), [(FRESH, (), 0), (STALE, (), 1), (FRESH, ("too old",), 1)]
)
def test_proofs_exit_1_if_one_is_stale_or_misses_an_objective(
    state: str, missed: tuple[str, ...], code: int, world: World
) -> None:
    proof = Proof(AT, "pass", "k")
    found = Freshness("redis", state, AT, 1024, proof, AT, None, missed=missed)
    looked: list[Any] = []
    world.patches.setattr("operations.health.freshness.read_freshness", noting(looked, (found,)))
    exit_code, out, _ = world.isa("proofs redis")
    assert exit_code == code
    assert looked == [(("redis",),)]
    assert out[0] == "Verified restores"
    row = ("redis", state, "2026-11-23 01:00", "pass", "2026-11-23 01:00", *missed)
    assert out[2] == "  ".join(row)


@pytest.mark.parametrize(
    ("check", "code", "line"),
    [
        (Check("leases", True, "3 leases", 0.25), 0, "leases  ok  0.2  3 leases"),
        (Check("leases", False, "stuck", 1.0), 1, "leases  BAD  1.0  stuck"),
        (Check("leases", False, "old", 1.0, critical=False), 0, "leases  warning  1.0  old"),
    ],
)
def test_the_doctor_exits_1_on_a_critical_finding(
    check: Check, code: int, line: str, world: World
) -> None:
    asked: list[Any] = []

    def examine(environment: str, *, fix: bool) -> list[Finding]:
        asked.append((environment, fix))
        return [Finding(check, lambda: "done")]

    world.patches.setattr("flows.doctor.examine", examine)
    found, out, _ = world.isa("doctor")
    assert found == code
    assert out[2] == line
    assert ("isa doctor --fix would fix some of these" in out) == (not check.ok)
    assert "isa doctor --fix would fix some of these" not in world.isa("doctor --fix")[1]
    assert asked == [("sandbox", False), ("sandbox", True)]


@pytest.mark.parametrize("ready", [True, False])
def test_status_shows_checks_and_members_and_exits_1_if_one_is_not_ready(
    ready: bool, world: World
) -> None:
    checks = (Check("members answer", True, "6 of 6"), Check("write", ready, "to redis-0"))
    member = SimpleNamespace(name="redis-0", node="node-1", restarts=2, trouble="")
    asked: list[Any] = []
    component = SimpleNamespace(
        name="redis", ready=ready, finding=SimpleNamespace(checks=checks), members=(member,),
        role=lambda _: Role("redis-0", "master", "7 B"),
    )  # fmt: skip
    world.patches.setattr(
        "operations.health.status.read_status",
        noting(asked, [component]),
    )
    code, out, _ = world.isa("status --only redis")
    assert code == (0 if ready else 1)
    assert asked == [(("redis",),)]
    assert "redis  members answer  ok  6 of 6" in out
    assert f"  write  {'ok' if ready else 'down'}  to redis-0" in out
    assert "redis  redis-0  master  7 B  node-1  2" in out


def retained(plan: RetentionPlan, world: World, **more: Any) -> Callable[[str], Any]:
    for name, answer in {
        "plan_retention": plan, "apply_retention": more.get("held", {}), "extend_locks": more.get("locks", Extension()),
    }.items():  # fmt: skip
        world.patches.setattr(f"operations.backup.retention.{name}", lambda *_, a=answer: a)
    return world.isa


def test_retention_shows_what_may_go_and_removes_it_only_when_told_to(world: World) -> None:
    going, staying, held = a_set(0), a_set(1), a_set(2)
    verdicts = (
        Verdict(going, ()),
        Verdict(staying, ("newest complete backup",)),
        Verdict(held, ()),
    )
    isa = retained(
        RetentionPlan(verdicts, Garbage((), (), 0)), world, held={held.id: "it is locked"}
    )
    code, out, _ = isa("retention")
    assert code == 0
    assert f"redis  {going.id}  0 B  may go" in out
    assert f"redis  {staying.id}  0 B  keep  newest complete backup" in out
    assert "0 orphaned objects (0 B), 0 incomplete uploads" in out
    assert out[-1] == "Nothing was removed. Run with --apply to remove it."
    code, out, _ = isa("retention --apply")
    assert code == 0
    assert f"redis  {going.id}  0 B  removed" in out
    assert f"redis  {held.id}  0 B  held  it is locked" in out
    assert out[-1] == "0 orphaned objects (0 B), 0 incomplete uploads removed"


def test_retention_exits_1_where_it_could_not_do_all(world: World) -> None:
    keeps = RetentionPlan((), Garbage((), (), 0))
    locks = Extension(AT, 3, {SET: "AccessDenied"})
    code, out, _ = retained(keeps, world, locks=locks)("retention --apply")
    assert code == 1
    assert "3 objects locked until 2026-11-23 01:00 UTC" in out
    assert f"the object lock of {SET} could not be extended: AccessDenied" in out
    broken = RetentionPlan((), Garbage((), (), 0), {}, {"test/redis/x/manifest.json": "half"})
    code, out, _ = retained(broken, world)("retention")
    assert code == 1
    assert any("no backup of redis is removed" in line for line in out)


@pytest.mark.parametrize("arrived", [True, False])
def test_a_test_message_that_is_lost_exits_1(arrived: bool, world: World) -> None:
    sent = [Sent("pager", arrived, 1.25, "" if arrived else "refused"), Sent("mail", True, 0.5, "")]
    world.patches.setattr("tasks.server.notifications.send_test", lambda settings: sent)
    code, out, _ = world.isa("notify")
    assert code == (0 if arrived else 1)
    assert out[2] == ("pager  arrived  1.2" if arrived else "pager  LOST  1.2  refused")


def test_setup_says_what_it_did(world: World) -> None:
    world.patches.setattr("tasks.server.setup.set_up", lambda settings: "3 made")
    code, out, _ = world.isa("setup")
    assert (code, out) == (
        0,
        ["deployments match prefect.yaml; automations: 3 made"],
    )


@pytest.mark.parametrize(("broken", "code"), [({}, 0), ({"test/redis/x/manifest.json": "half"}, 1)])
def test_backups_are_listed_and_a_damaged_manifest_exits_1(
    broken: dict[str, str], code: int, world: World
) -> None:
    made, night = a_set(0, slot="x"), a_set(1, kind="incremental", slot="2025-01-02")
    sets = (made.model_copy(update={"slot": made.id}), night)
    catalogue = SimpleNamespace(sets=sets, broken=broken, uncommitted=("a", "b"))
    world.catalogue = catalogue  # type: ignore[attr-defined]
    found, out, _ = world.isa("backups redis")
    assert found == code
    assert out[0] == "Backups"
    assert out[2] == f"redis  {made.id}  complete  full  0 B  0 B  0.0  redis 8"
    assert out[3] == f"redis  {night.id}  complete  2025-01-02  incremental  0 B  0 B  0.0  redis 8"
    assert ("damaged: test/redis/x/manifest.json: half" in out) == bool(broken)
    assert out[-1] == "2 without a manifest: in progress, or orphaned (`isa retention` lists them)"


def test_wrong_usage_says_how_it_is_right(world: World) -> None:
    code, _, err = world.isa("approve x --name Ada")
    assert code == 2
    assert err[:3] == [
        "Usage: isa approve [OPTIONS] FLOW_RUN",
        "Try 'isa approve -h' for help.",
        "",
    ]
    assert len(err) == 4 and err[3].startswith("Error: ")
