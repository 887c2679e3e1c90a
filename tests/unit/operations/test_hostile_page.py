"""The page, its pictures and the metrics with a hostile name in each of their texts."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from config.text.printable import visible
from operations.health.freshness import metrics
from operations.report import figures as drawing
from operations.report.html import as_html
from operations.report.svg import Drawing
from redaction import redact
from tests import hostile
from tests.hostile_reports import Reports, harmless

REPORTS = Reports(list(hostile.NAMES.values()))
TAGS = ("svg", "defs", "style", "g", "path", "text", "use", "clipPath", "rect", "pattern")
SVG = "{http://www.w3.org/2000/svg}"
CONTROL = re.compile(
    r"[^\S \n]|[\x00-\x09\x0b-\x1f\x7f-\x9f\ud800-\udfff\u200b-\u200f\u202a-\u202e]"
)


class Reader(HTMLParser):
    """Counts elements and attributes, and keeps the text of table cells."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.found: Counter[str] = Counter()
        self.cells: list[str] = []
        self._open = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found[tag] += 1
        self.found.update(f"{tag} {name}" for name, _ in attrs)
        if tag == "td":
            self.cells.append("")
            self._open = True

    def handle_endtag(self, tag: str) -> None:
        self._open = self._open and tag != "td"

    def handle_data(self, data: str) -> None:
        if self._open:
            self.cells[-1] += data

    def handle_comment(self, data: str) -> None:
        self.found["comment"] += 1


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    reader.close()
    return reader


def test_a_page_has_the_elements_that_it_has_with_harmless_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Pictures are tried below; here they are one for all."""
    for name in ("graph", "timeline", "proofs", "backups"):
        picture = Drawing("<svg ></svg>", REPORTS.all)
        monkeypatch.setattr(drawing, name, lambda *_, picture=picture: picture)

    page, plain = as_html(REPORTS.report), as_html(harmless(REPORTS).report)

    assert not CONTROL.search(page)
    page.encode("utf-8")
    assert read(page).found == read(plain).found
    assert len(page.splitlines()) == len(plain.splitlines())
    cells = set(read(page).cells)
    for name in REPORTS.names:
        assert visible(redact(name)) in cells


@pytest.mark.parametrize(
    "reports", [Reports(hostile.grouped()), Reports([REPORTS.all])], ids=["each", "all in one"]
)
def test_a_picture_is_xml_in_which_a_name_is_one_text(reports: Reports) -> None:
    names = dict.fromkeys(reports.names, ())
    waiting = [replace(line, seconds=0.0) for line in reports.lines]
    pictures = {
        "graph": drawing.graph(names, dict.fromkeys(names, "failed"), reports.all),
        "timeline": drawing.timeline(reports.lines, reports.all),
        "of what never began": drawing.timeline(waiting, reports.all),
        "proofs": drawing.proofs(reports.histories),
        "backups": drawing.backups(reports.histories[0]),
    }

    for what, picture in pictures.items():
        tags = {element.tag for element in ElementTree.fromstring(picture.svg).iter()}
        assert tags <= {SVG + tag for tag in TAGS}, what
        assert not CONTROL.search(str(picture.inline)), what
        assert read(str(picture.inline)).found["svg"] == 1, what
    for what in ("graph", "timeline", "proofs"):
        shown = Counter(texts(pictures[what].svg))
        for name in names:
            if name.strip(" "):
                assert visible(redact(name)) in shown, what


def texts(svg: str) -> list[str]:
    found = ElementTree.fromstring(svg).iter(f"{SVG}text")
    return ["".join(one.itertext()) for one in found]


@hostile.each()
def test_a_metric_has_the_lines_that_a_harmless_name_makes(name: str) -> None:
    text = metrics(Reports([name]).freshness, name)

    sample = re.compile(
        r'isa_cloud_[a-z_]+\{environment="(?:[^"\\\n]|\\[\\"n])*",component="(?:[^"\\\n]|\\[\\"n])*"\} \d+\.\d{3}'
    )
    lines = [line for line in text.split("\n") if line and not line.startswith("# ")]
    assert len(lines) == 6
    assert all(sample.fullmatch(line) and line.isprintable() for line in lines), lines
    text.encode("utf-8")
