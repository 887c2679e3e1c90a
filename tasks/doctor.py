"""What the doctor asks the Prefect server: dead workers, stuck runs, schedules without runs, missing automations."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
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
from operations.doctor import Finding, Question, clock
from tasks import automations
from tasks.parameters import refuse_unknown, unchecked
from tasks.server import JOB_TEMPLATE, connect, declaration_faults, deployments, get, post
from tasks.setup import filled, set_up, variables

# A worker asks every 15 s and a process starts in less than a minute; a cancelled run has 30 s until SIGKILL.
STUCK = {"PENDING": timedelta(minutes=10), "CANCELLING": timedelta(minutes=2)}
# A run whose process is gone loses its heartbeat and is ended by an automation; a day is longer than any night's work.
LONG = timedelta(hours=24)
OURS = "isa-cloud"  # the tag that prefect.yaml gives every deployment


def questions(settings: Settings) -> list[Question]:
    """What is asked of the server; one finding alone where none is configured."""
    if not PREFECT_API_URL.value():
        words = "none is configured: set PREFECT_API_URL"
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
        ("what workers run", lambda: check_declarations(settings)),
        ("runs", _runs),
        ("long runs", _long),
        ("schedules", lambda: _schedules(variables(settings))),
        ("parameters", _parameters),
        ("automations", lambda: check_automations(settings.notify.blocks)),
    ]


def check_automations(blocks: Iterable[str]) -> Iterator[Finding]:
    """Whether the server's automations are the declared ones, and whether it has the blocks that they send through."""
    names = tuple(blocks)
    lost = [name for name in names if name not in automations.find_blocks(names)]
    if lost:
        words = f"{', '.join(lost)}: make them in the UI (Blocks), or correct notify.blocks"
        yield Finding(Check("notification blocks", False, words))
    found = automations.compare(names)
    yield Finding(
        Check("automations", not found, str(found), critical=False), found.settle if found else None
    )
    if found.off:
        words = f"switched off: {', '.join(found.off)}"
        yield Finding(Check("automations in use", False, words, critical=False))


def check_declarations(settings: Settings) -> Iterator[Finding]:
    """Whether the server asks workers to run what prefect.yaml declares, and nothing else.

    Workers refuse anything else, so a difference means failing runs, or somebody who tried.
    """

    def fix() -> str:
        return f"brought back; automations: {set_up(settings)}"

    declared = {one["name"]: one for one in deployments()}
    pools = sorted({one["work_pool"]["name"] for one in declared.values()})
    for pool in pools:
        same = get(f"/work_pools/{pool}")["base_job_template"] == JOB_TEMPLATE
        words = "has no variables" if same else "was changed; workers ignore it: isa setup"
        yield Finding(Check(f"job template of {pool}", same, words), None if same else fix)
    present = post("/deployments/filter", {"limit": 200})
    count = Counter(live["name"] for live in present)
    for live in present:
        name = live["name"]
        if name in declared:
            faults = declaration_faults(declared[name], live)
            faults += ["another flow has a deployment of that name"] if count[name] > 1 else []
            words = (
                f"{'; '.join(faults)}; workers refuse its runs: isa setup"
                if faults
                else "as declared"
            )
            check = Check(f"declaration of {name}", not faults, words)
            yield Finding(check, fix if faults else None)
        elif live.get("work_pool_name") in pools and OURS not in live["tags"]:
            words = (
                f"is not declared in prefect.yaml; workers refuse its runs: find out who made it, then "
                f"prefect deployment delete --id {live['id']}"
            )
            yield Finding(Check(f"deployment {name!r}", False, words))


# ---------------------------------------------------------------------- inside
def _server() -> Iterator[Finding]:
    with connect() as client:
        answer = client.request("GET", "/admin/version")
    found, own = str(json.loads(answer.content)), prefect.__version__
    hint = f"{found} at {PREFECT_API_URL.value()}" + ("" if found == own else f"; this is {own}")
    yield Finding(Check("Prefect server", found == own, hint))
    yield from clock("Prefect", parsedate_to_datetime(answer.headers["Date"]))


def _workers() -> Iterator[Finding]:
    for pool in sorted({one["work_pool"]["name"] for one in deployments()}):
        found = post(f"/work_pools/{pool}/workers/filter", {})
        alive = [one["name"] for one in found if one["status"] == "ONLINE"]
        hint = f"{', '.join(alive)} at work" if alive else "no worker is alive: runs wait for ever"
        yield Finding(Check(f"workers of {pool}", bool(alive), hint))


def _queues() -> Iterator[Finding]:
    """A pool with one live worker is not enough: each queue has a worker of its own."""
    declared = [one["work_pool"] for one in deployments()]
    scheduled = {
        one["work_pool"]["work_queue_name"] for one in deployments() if one.get("schedules")
    }
    asked = {
        found["name"]: found["status"] == "READY"
        for pool in sorted({one["name"] for one in declared})
        for found in post(f"/work_pools/{pool}/queues/filter", {})
    }
    for name in sorted({one["work_queue_name"] for one in declared}):
        if asked.get(name, False):
            ok, hint = True, "a worker asks it"
        elif name in scheduled:
            ok, hint = False, "no worker asks it: scheduled runs wait for ever (deployments/worker)"
        else:
            ok, hint = True, "no worker asks it: start one before a run is called"
        yield Finding(Check(f"queue {name}", ok, hint))


def _long() -> Iterator[Finding]:
    before = (datetime.now(UTC) - LONG).isoformat()
    body = {
        "flow_runs": {"state": {"type": {"any_": ["RUNNING"]}}, "start_time": {"before_": before}},
        "limit": 200,
    }
    names = ", ".join(run["name"] for run in post("/flow_runs/filter", body))
    words = f"for more than a day: {names}; see their logs, cancel them in the UI"
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
                words = "found stuck: no process is behind it"
                state: State[Any] = Crashed(message=words) if pending else Cancelled(message=words)
                client.set_flow_run_state(UUID(run["id"]), state, force=True)
        return f"ended {', '.join(run['name'] for run in stuck)}"

    names = ", ".join(f"{run['name']} ({run['state_name']})" for run in stuck)
    hint = f"stuck: {names}" if stuck else "none is stuck"
    yield Finding(Check("runs", not stuck, hint), end)


def _parameters() -> Iterator[Finding]:
    found = unchecked(post("/deployments/filter", {"limit": 200}))
    words = f"{', '.join(sorted(found))} take parameters that they do not have, and their runs crash: isa setup"
    hint = words if found else "unknown ones are refused"

    def fix() -> str:
        return f"{', '.join(refuse_unknown())} refuse unknown parameters"

    yield Finding(Check("parameters", not found, hint, critical=False), fix)


def _schedules(environ: Mapping[str, str]) -> Iterator[Finding]:
    """The canary: each active schedule has made runs that are still to come. Prefect's scheduler can fail silently."""
    present = {one["name"]: one for one in post("/deployments/filter", {"limit": 200})}
    declared = {one["name"] for one in deployments()}
    for name, live in present.items():
        if OURS in live["tags"] and name not in declared:  # of an older version of this project
            words = f"is no longer declared, and still runs: prefect deployment delete --id {live['id']}"
            yield Finding(Check(f"deployment {name}", False, words, critical=False))
    for wanted in deployments():
        name = wanted["name"]
        live = present.get(name)
        if live is None:
            yield Finding(Check(f"deployment {name}", False, "is not there: isa setup"))
            continue
        if not wanted.get("schedules"):
            continue
        check = f"schedule of {name}"
        times = {
            (filled(one["cron"], environ), filled(one["timezone"], environ))
            for one in wanted["schedules"]
        }
        active = [one["schedule"] for one in live["schedules"] if one["active"]]
        if live["paused"] or len(active) < len(times):
            words = f"{len(active)} of {len(times)} schedules are active: resume them in the UI"
            yield Finding(Check(check, False, words))
            continue
        other = {(one["cron"], one["timezone"]) for one in active} - times
        if other:
            words = "; ".join(f"{cron} {zone}" for cron, zone in sorted(other))
            yield Finding(Check(check, False, f"{words} is not what the settings say: isa setup"))
            continue
        later = {
            "deployments": {"id": {"any_": [live["id"]]}},
            "flow_runs": {
                "state": {"type": {"any_": ["SCHEDULED"]}},
                "expected_start_time": {"after_": datetime.now(UTC).isoformat()},
            },
        }
        count = post("/flow_runs/count", later)
        words = (
            f"{count} runs to come"
            if count
            else "the scheduler has made no run: restart the server, see its log"
        )
        yield Finding(Check(check, bool(count), words))
