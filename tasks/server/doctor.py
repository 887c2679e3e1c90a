"""The doctor's checks of the Prefect server: dead workers, stuck runs, schedules without runs, missing automations."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any
from uuid import UUID

import prefect
from prefect.client.schemas.objects import State
from prefect.settings import PREFECT_API_URL
from prefect.states import Cancelled, Crashed

from components.base import Check
from config.models import Settings
from operations.health.cluster_checks import check_clock
from operations.health.findings import Finding, Question
from tasks.server import automations
from tasks.server.api import JOB_TEMPLATE, connect, deployments, get, post
from tasks.server.deployed import CODE, HARMLESS, declared, differences, pools, present, queues
from tasks.server.setup import set_up

# A worker asks every 15 s and a process starts in less than a minute; a cancelled run has 30 s until SIGKILL.
STUCK = {"PENDING": timedelta(minutes=10), "CANCELLING": timedelta(minutes=2)}
# A run whose process is gone loses its heartbeat and is ended by an automation; a day is longer than any night's work.
LONG = timedelta(hours=24)
# A changed schedule loses its runs, and the scheduler makes new ones every minute.
SCHEDULER = timedelta(minutes=5)


def questions(settings: Settings) -> list[Question]:
    """Return the checks of the server; one finding alone if no server is configured."""
    if not PREFECT_API_URL.value():
        words = "no Prefect server is configured: set PREFECT_API_URL"
        return [
            (
                "Prefect server",
                lambda: [Finding(Check("Prefect server", False, words, critical=False))],
            )
        ]
    return [
        ("Prefect server", _server),
        ("workers", _workers),
        ("queues", _queues),
        ("deployments", lambda: check_deployments(settings)),
        ("pools", lambda: _pool_limits(settings.pool.runs)),
        ("runs", _runs),
        ("long runs", _long),
        ("automations", lambda: check_automations(settings.notify.blocks)),
    ]


def check_automations(blocks: Iterable[str]) -> Iterator[Finding]:
    """Whether the server's automations match the declared ones, and whether it has the blocks that they use."""
    names = tuple(blocks)
    lost = [name for name in names if name not in automations.find_blocks(names)]
    if lost:
        words = f"{', '.join(lost)}: create them in the UI (Blocks), or correct notify.blocks"
        yield Finding(Check("notification blocks", False, words))
    found = automations.compare(names)
    yield Finding(
        Check("automations", not found, str(found), critical=False), found.settle if found else None
    )
    if found.off:
        words = f"switched off: {', '.join(found.off)}"
        yield Finding(Check("automations are enabled", False, words, critical=False))


def check_deployments(settings: Settings) -> Iterator[Finding]:
    """Whether the server holds exactly what prefect.yaml and the settings declare.

    Workers refuse other code, so a difference in code means failing runs; any other changes what a run does, or when.
    """

    @functools.cache  # the first finding's brings everything back
    def fix() -> str:
        return f"restored; automations: {set_up(settings)}"

    here = pools()
    for pool in sorted(here):
        live_pool = get(f"/work_pools/{pool}")
        yield _type(pool, live_pool["type"], settings.pool.type)
        same = live_pool["base_job_template"] == JOB_TEMPLATE
        words = "has no variables" if same else "was changed; workers ignore it. Run isa setup"
        yield Finding(Check(f"job template of {pool}", same, words), None if same else fix)
    found = present()
    for name, terms in declared(settings).items():
        live = found.own.get(name)
        if live is None:
            check = Check(f"declaration of {name}", False, "does not exist: run isa setup")
            yield Finding(check, fix)
            continue
        differing = differences(terms, live)
        yield _declaration(name, differing, fix)
        running = not any("schedule " in key or key == "paused" for key in differing)
        if live["schedules"] and running:
            yield _canary(name, live)
    for live in found.foreign:
        served = live["work_pool_name"] in here
        words = (
            f"is not declared in prefect.yaml{'; workers refuse its runs' if served else ''}: find out who created it "
            f"(an older version of this project had others), then run prefect deployment delete --id {live['id']}"
        )
        name = f"deployment {live['name']!r} of flow {live['flow']!r}"
        yield Finding(Check(name, False, words, critical=served))


# ---------------------------------------------------------------------- inside
def _server() -> Iterator[Finding]:
    with connect() as client:
        answer = client.request("GET", "/admin/version")
    found, own = str(json.loads(answer.content)), prefect.__version__
    hint = f"{found} at {PREFECT_API_URL.value()}" + ("" if found == own else f"; this is {own}")
    yield Finding(Check("Prefect server", found == own, hint))
    yield from check_clock("Prefect", parsedate_to_datetime(answer.headers["Date"]))


def _workers() -> Iterator[Finding]:
    for pool in sorted(pools()):
        found = post(f"/work_pools/{pool}/workers/filter", {})
        alive = [one["name"] for one in found if one["status"] == "ONLINE"]
        hint = (
            f"running: {', '.join(alive)}"
            if alive
            else "no worker is running: runs wait until one starts"
        )
        yield Finding(Check(f"workers of {pool}", bool(alive), hint))


def _queues() -> Iterator[Finding]:
    """Whether each queue has a worker: one live worker in the pool is not enough, because each queue has its own."""
    scheduled = {
        deployment["work_pool"]["work_queue_name"]
        for deployment in deployments()
        if deployment.get("schedules")
    }
    asked = {
        found["name"]: found["status"] == "READY"
        for pool in sorted(pools())
        for found in post(f"/work_pools/{pool}/queues/filter", {})
    }
    for name in sorted(queues()):
        if asked.get(name, False):
            ok, hint = True, "a worker polls it"
        elif name in scheduled:
            ok, hint = (
                False,
                "no worker polls it: scheduled runs wait until one starts (deployments/worker)",
            )
        else:
            ok, hint = True, "no worker polls it: start one before you start a run"
        yield Finding(Check(f"queue {name}", ok, hint))


def _pool_limits(runs: int | None) -> Iterator[Finding]:
    """Whether a pool, or a queue of it, blocks runs: a limit of 0 is silent, because its runs are late and not stuck.

    Args:
        runs: most runs at the same time in a pool, from the settings; None if the server's own limit applies.
    """
    ours = queues()
    for pool in sorted(pools()):
        live = get(f"/work_pools/{pool}")
        served = post(f"/work_pools/{pool}/queues/filter", {})
        places = [("the pool", live)]
        places += [(f"queue {one['name']}", one) for one in served if one["name"] in ours]
        closed = [
            f"{what} allows no run to start"
            for what, one in places
            if one["concurrency_limit"] == 0
        ]
        faults = [f"{what} is paused" for what, one in places if one["is_paused"]]
        if runs not in (None, limit := live["concurrency_limit"]):
            faults.append(f"the pool's limit is {limit} instead of {runs}")
        words = "; ".join(closed + faults)
        cure = f"{words}: isa setup sets the pool's limit; set the others in the UI (Work pools)"
        check = Check(f"limits of {pool}", not words, cure if words else "no limit blocks runs")
        yield Finding(replace(check, critical=bool(closed)))


def _long() -> Iterator[Finding]:
    before = (datetime.now(UTC) - LONG).isoformat()
    body = {
        "flow_runs": {"state": {"type": {"any_": ["RUNNING"]}}, "start_time": {"before_": before}},
        "limit": 200,
    }
    names = ", ".join(run["name"] for run in post("/flow_runs/filter", body))
    words = f"running for more than a day: {names}; see their logs, cancel them in the UI"
    yield Finding(Check("long runs", not names, words if names else "none", critical=False))


def _runs() -> Iterator[Finding]:
    now = datetime.now(UTC)
    body = {"flow_runs": {"state": {"type": {"any_": list(STUCK)}}}, "limit": 200}
    stuck = [
        run
        for run in post("/flow_runs/filter", body)
        if now - datetime.fromisoformat(run["state"]["timestamp"]) > STUCK[run["state_type"]]
    ]

    def end() -> str:
        with connect() as client:
            for run in stuck:
                pending = run["state_type"] == "PENDING"
                words = "stuck: its process is gone"
                state: State[Any] = Crashed(message=words) if pending else Cancelled(message=words)
                client.set_flow_run_state(UUID(run["id"]), state, force=True)
        return f"ended {', '.join(run['name'] for run in stuck)}"

    names = ", ".join(f"{run['name']} ({run['state_name']})" for run in stuck)
    hint = f"stuck: {names}" if stuck else "no run is stuck"
    yield Finding(Check("runs", not stuck, hint), end)


def _type(pool: str, live: str, declared: str) -> Finding:
    """Whether the pool has the type of the settings. Runs do not depend on it: a worker knows what it makes of them."""
    same = live == declared
    words = live if same else f"{live} instead of {declared}: isa setup tells how to change it"
    return Finding(Check(f"type of {pool}", same, words, critical=False))


def _declaration(name: str, differing: Mapping[str, str], fix: Callable[[], str]) -> Finding:
    """Return one finding for all differences of a deployment; critical unless they change no run."""
    check = f"declaration of {name}"
    if not differing:
        return Finding(Check(check, True, "as declared"))
    if differing.keys() == {"paused"}:
        words = f"{differing['paused']}: resume it in the UI unless it was paused on purpose"
        return Finding(Check(check, False, words, critical=False))
    refused = "; workers refuse its runs" if CODE & differing.keys() else ""
    words = f"{'; '.join(differing.values())}{refused}: run isa setup to restore it"
    return Finding(Check(check, False, words, critical=not differing.keys() <= HARMLESS), fix)


def _canary(name: str, live: Mapping[str, Any]) -> Finding:
    """Whether a deployment's schedules have created future runs: Prefect's scheduler can fail silently."""
    later = {
        "deployments": {"id": {"any_": [live["id"]]}},
        "flow_runs": {
            "state": {"type": {"any_": ["SCHEDULED"]}},
            "expected_start_time": {"after_": datetime.now(UTC).isoformat()},
        },
    }
    count = post("/flow_runs/count", later)
    changed = max(datetime.fromisoformat(schedule["updated"]) for schedule in live["schedules"])
    fresh = datetime.now(UTC) - changed < SCHEDULER
    words = "the scheduler has created no run: see the server's log, restart the server"
    if count:
        words = f"{count} runs scheduled"
    elif fresh:
        words = "was changed just now: its runs are not scheduled yet"
    return Finding(Check(f"schedule of {name}", bool(count) or fresh, words))
