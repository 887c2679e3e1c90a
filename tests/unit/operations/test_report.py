"""The report: pictures that do not lie, a page that needs nothing else and lets no engine's words become markup."""

from __future__ import annotations

import base64
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from xml.etree import ElementTree

import pytest

from components import SETS
from components.base import Check
from errors import PermanentError
from operations.health.freshness import FAILING, FRESH, NEVER, Freshness
from operations.health.gate import Finding
from operations.health.status import ComponentStatus
from operations.report import figures as drawing
from operations.report.history import BackupPoint, ComponentHistory, ProofPoint
from operations.report.html import as_html
from operations.report.report import Asking, DeployRun, Report
from operations.report.svg import GREEN, Drawing
from operations.runner.progress import NodeProgress
from redaction import MASK, redact

NOW = datetime(2026, 11, 24, 6, tzinfo=UTC)
EVIL = "redis-check-rdb: <script>alert('$x$')</script> & more"
NEEDS = {"namespace": (), "redis": ("namespace",), "nats": ("namespace",)}
NODES = (
    NodeProgress("namespace", "done", "installed", 10.0, "", 0.0),
    NodeProgress("redis", "done", "installed", 20.0, "", 40.0),
    NodeProgress("nats", "waiting", "skipped", 0.0, f"needs {EVIL}"),
)


def component(
    name: str, nights: int = 0, state: str = FRESH, verdict: str = "pass"
) -> ComponentHistory:
    times = [NOW - timedelta(days=nights - n) for n in range(nights)]
    backups = tuple(
        BackupPoint(f"{name}-{n}", at, 10.0 + n, 2000 + n, 1000 + n, "full", "complete")
        for n, at in enumerate(times)
    )
    proofs = tuple(ProofPoint(f"{name}-{n}", at, "pass", "L4", 12.0) for n, at in enumerate(times))
    if proofs:
        proofs = (*proofs[:-1], replace(proofs[-1], verdict=verdict, sentence=f"{verdict}: {EVIL}"))
    newest = times[-1] if times else None
    return ComponentHistory(Freshness(name, state, newest, 1000), backups, proofs, NOW)


def report(**parts: object) -> Report:
    run = DeployRun("deploy-test", NOW, 61.0, "failed", f"nats: {EVIL}", NODES)
    given = {
        "components": tuple(component(name, 7) for name in SETS),
        "needs": NEEDS,
        "deploys": (run, replace(run, state="completed")),
        "status": (ComponentStatus("nats", Finding((Check("quorum", False, EVIL, 0.1),)), ()),),
        "checks": (Check("leftovers", False, EVIL, critical=False), Check("versions", True)),
        **parts,
    }
    return Report("test", NOW, **given)  # type: ignore[arg-type]


def texts(picture: Drawing) -> list[str]:
    """The words in a picture, which is well-formed."""
    found = ElementTree.fromstring(picture.svg).iter("{http://www.w3.org/2000/svg}text")
    return ["".join(one.itertext()) for one in found]


def bars(picture: Drawing, colour: str) -> list[tuple[float, float]]:
    """Left edge and width of each filled shape of a colour."""
    found = []
    for path in re.findall(rf'<path d="([^"]*)"[^>]*style="fill: {colour}', picture.svg):
        across = [float(x) for x in re.findall(r"[ML] ([\d.]+) [\d.]+", path)]
        found.append((min(across), max(across) - min(across)))
    return found


# ---------------------------------------------------------------------- pictures
def test_a_bar_is_as_long_as_its_node_took_and_begins_when_it_began() -> None:
    (first, second) = bars(drawing.timeline(NODES, "a deploy"), GREEN)
    second_long = first[1] / 10.0
    assert second[1] / second_long == pytest.approx(20.0, rel=0.01)
    assert (second[0] - first[0]) / second_long == pytest.approx(40.0, rel=0.01)


def test_a_node_that_never_began_has_words_and_no_bar() -> None:
    found = texts(drawing.timeline(NODES, "a deploy"))
    assert "installed, 20.0 s" in found
    assert any(word.startswith("skipped: needs redis-check-rdb: <script>") for word in found)
    assert len(bars(drawing.timeline(NODES, "a deploy"), "#e69f00")) == 0


def test_what_a_killed_run_left_is_unfinished_or_not_attempted() -> None:
    cut = (NodeProgress("redis", "gate", "", 3.0), NodeProgress("nats"))
    found = texts(drawing.timeline(cut, "a deploy"))
    assert {"unfinished, 3.0 s", "not-attempted"} <= set(found)


def test_the_graph_names_every_node_and_its_outcome() -> None:
    words = {"namespace": "unchanged", "redis": "failed", "nats": "skipped"}
    assert texts(drawing.graph(NEEDS, words, "the graph")) == [
        "namespace", "unchanged", "redis", "failed", "nats", "skipped",
    ]  # fmt: skip


@pytest.mark.parametrize("nights", [0, 1, 2, 40])
def test_every_length_of_history_can_be_drawn(nights: int) -> None:
    one = component("redis", nights)
    assert ("no set" in texts(drawing.backups(one))) == (nights == 0)
    assert ("not verified yet" in texts(drawing.proofs([one]))) == (nights == 0)
    assert texts(drawing.proofs([])) is not None
    assert texts(drawing.timeline([], "nothing")) is not None
    assert texts(drawing.graph({}, {}, "nothing")) == []


def test_the_last_verdict_stands_beside_its_component() -> None:
    found = texts(drawing.proofs([component("redis", 3, FAILING, "fail"), component("nats")]))
    assert {"redis", "nats", "fail L4", "pass", "fail"} <= set(found)
    assert "error" not in found  # the legend has what there is


def test_as_an_address_a_picture_has_paper_below_it() -> None:
    made = drawing.timeline(NODES, "a deploy")
    data = made.address.removeprefix("data:image/svg+xml;base64,")
    words = "a deploy. namespace: installed, 10 s; redis: installed, 20 s; nats: skipped, 0 s"
    assert made.words == words
    assert 'fill="#ffffff"' in base64.b64decode(data).decode()


def test_the_same_history_is_the_same_picture() -> None:
    assert drawing.backups(component("redis", 9)) == drawing.backups(component("redis", 9))


# ---------------------------------------------------------------------- the page
@pytest.fixture(scope="module")
def page() -> str:
    """Of two components, one of which fails in an engine's own words."""
    found = (component("redis", 3, FAILING, "fail"), component("nats", 7))
    return as_html(report(components=found, unasked=(EVIL,)))


def test_the_page_says_what_is_known_of_every_component(page: str) -> None:
    assert "<b>redis</b>" in page and "<b>nats</b>" in page
    assert "1 of 2 have a recent verified restore; failing: redis; not ready: nats." in page
    assert page.count("<svg ") == 2 + 4  # a picture of each; proofs, graph, two deploys


def test_words_of_engines_never_become_markup(page: str) -> None:
    assert "<script" not in page
    # headline and last proof of two, words and picture of two deploys, a gate, the doctor, what could not be asked
    assert page.count("&lt;script&gt;") == 2 * 2 + 2 * 2 + 3


def test_the_page_loads_nothing(page: str) -> None:
    assert "default-src 'none'; style-src 'unsafe-inline'" in page
    assert not re.findall(r"""(?:src|action|data)=|@import|url\((?!#)""", page)
    assert not re.findall(r'href="(?!#)[^"]*"', page)
    addresses = set(re.findall(r"https?://[^\s\"'<)]+", page))
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}


def test_with_nothing_known_the_page_says_that() -> None:
    empty = Report("test", NOW, unasked=("backups, proofs: the store does not answer",))
    text = as_html(empty)
    assert "backups and proofs could not be read." in text
    assert '<li class="finding">backups, proofs: the store does not answer</li>' in text
    assert "<svg" not in text


def test_components_without_a_proof_are_named_in_the_first_line() -> None:
    components = (component("redis", 2, FAILING, "fail"), component("nats", 0, NEVER))
    found = report(components=components, status=())
    assert (
        found.sentence
        == "0 of 2 have a recent verified restore; failing: redis; never proven: nats."
    )


def test_the_data_are_the_pages() -> None:
    body = report().document().plain()
    assert [one["component"] for one in body["components"]] == list(SETS)
    assert body["deploys"][0]["nodes"][1]["began"] == 40.0
    assert body["components"][0]["weekly_trend"]["seconds"] > 0


def test_a_part_that_cannot_be_asked_stops_no_other() -> None:
    def away() -> list[str]:
        raise PermanentError("no Prefect server is configured")

    asking = Asking()
    assert asking.ask("deploys", away, []) == []
    assert asking.ask("doctor", lambda: ["well"], []) == ["well"]
    assert asking.unasked == ["deploys: no Prefect server is configured"]


def test_no_secret_that_this_process_has_held_is_on_the_page() -> None:
    secret = redact.remember('correct<horse>&"battery"')
    nodes = (NODES[0], replace(NODES[2], note=secret))
    run = DeployRun("deploy-test", NOW, 61.0, "failed", f"nats: {secret}", nodes)
    text = as_html(report(components=(), deploys=(run,), unasked=(secret,)))
    assert "horse" not in text
    assert text.count(MASK) == 3  # end of the deploy, its picture, what could not be asked
