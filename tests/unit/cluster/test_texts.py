"""What is a text in the settings arrives as that text, by way of the real helm."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.command import Cancellation, Command
from cluster.helm.client import Helm, helm_environ
from cluster.helm.releases import Release
from cluster.manifests import parse_manifests
from cluster.target import Target
from config.text.documents import dump, parse
from sandbox.machine.binaries import ensure

# What some reader of YAML takes for a number, a date, a truth or nothing at all.
TEXTS = (
    "2025e3", "1234e5", "1.5e3", "0x10", "0o7", "012", "089", "0b11", "1_000", "1e400", "+1", "-0", ".5", "5.",
    "on", "off", "yes", "no", "y", "n", "Y", "N", "true", "True", "false", "null", "Null", "~", "", "none",
    "1:30", "190:20:30", ".inf", "-.INF", ".nan", "2025-01-01", "2025-01-01T10:00:00Z", "=", "<<", "-", "?", ":",
    " leading", "trailing ", "\ttab", "two\nlines\n", "\n", "# no comment", "a: b", "a #b", "{a}", "[a", "&a", "*a",
    "!a", "%a", "@a", "`a", "'", '"', "\\", "für €", "\u2028", "\x85", "a\u200bb", "${x}", "😀", "sha256:1e5",
)  # fmt: skip


@pytest.fixture(scope="module")
def helm(tmp_path_factory: pytest.TempPathFactory) -> Helm:
    directory = tmp_path_factory.mktemp("charts")
    command = Command(
        str(ensure(["helm"])["helm"]), environ=helm_environ(), cancellation=Cancellation()
    )
    return Helm(command, Target({}), directory)


@pytest.fixture(scope="module")
def chart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A chart that renders the values that it was given, as JSON in a ConfigMap."""
    directory = tmp_path_factory.mktemp("echo")
    (directory / "templates").mkdir()
    (directory / "Chart.yaml").write_text(
        "apiVersion: v2\nname: echo\nversion: 0.1.0\n", encoding="utf-8"
    )
    (directory / "templates/echo.yaml").write_text(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: echo}\ndata: {seen: {{ toJson .Values | quote }}}\n",
        encoding="utf-8",
    )
    return directory


def echoed(helm: Helm, chart: Path, values: tuple[Any, ...], site: dict[str, Any]) -> Any:
    release = Release("r", "isa", "redis", str(chart), "", "", values, (), 60, True)
    (manifest,) = helm.template(release, site, kube_version="v1.36.3", api_versions=[])
    return json.loads(manifest["data"]["seen"])


def test_every_text_arrives_as_it_is(helm: Helm, chart: Path) -> None:
    texts = {f"t{number}": text for number, text in enumerate(TEXTS)}
    seen = echoed(helm, chart, ({"inline": texts},), {"site": texts})
    assert seen == {"inline": texts, "site": texts}


def test_a_text_may_be_a_key_too(helm: Helm, chart: Path) -> None:
    keys = {text: "x" for text in TEXTS if text}
    assert echoed(helm, chart, (), {"keys": keys})["keys"] == keys


def test_numbers_truths_and_nothing_stay_what_they_are(helm: Helm, chart: Path) -> None:
    values = {"a": 1, "b": True, "c": 1.5, "d": [], "e": {}, "f": 1 << 40, "g": [None, 2]}
    assert echoed(helm, chart, (values,), {}) == values


@pytest.mark.parametrize("text", TEXTS)
def test_what_is_written_is_read_back_by_us_and_by_others(text: str) -> None:
    written = dump({"a": text, text: [text]})
    assert parse(written, "x")[0] == [{"a": text, text: [text]}]
    assert yaml.safe_load(written) == {"a": text, text: [text]}


def test_what_looks_like_a_date_or_base_60_is_a_text_as_helm_has_it() -> None:
    text = "a: 2025-01-01\nb: 1:30\nc: =\nd: 2025e3\ne: .inf\n"
    wanted = {"a": "2025-01-01", "b": "1:30", "c": "=", "d": "2025e3", "e": ".inf"}
    assert parse(text, "x")[0] == [wanted]
    assert parse_manifests(text + "kind: ConfigMap\n") == [{**wanted, "kind": "ConfigMap"}]


def test_what_json_cannot_say_is_refused() -> None:
    for value in (float("inf"), object()):
        with pytest.raises(ValueError):
            dump({"a": value})
