"""`isa charts pull` makes a deploy independent of the charts' hosts, and one that is down stops nobody else."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from cluster.command import Command, Completed
from cluster.helm.releases import load_releases
from config.loading import load
from config.models import COMPONENTS, Settings
from errors import PermanentError
from operations.environment.charts import chart_states, pull_charts

HELMFILE = """\
repositories: [{name: repo, url: "https://charts.example"}]
releases:
  - {name: redis, namespace: isa, chart: repo/redis, version: 1.2.3, labels: {component: redis}}
  - {name: nats, namespace: isa, chart: repo/nats, version: 2.0.0, labels: {component: nats}}
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "helmfile.yaml").write_text(HELMFILE, encoding="utf-8")
    found = load("sandbox", {"ISA_CHARTS__DIRECTORY": str(tmp_path / "kept")})
    platform = found.platform.model_copy(update={"helmfile": tmp_path / "helmfile.yaml"})
    return found.model_copy(update={"platform": platform})


@pytest.fixture
def hosts(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Charts that their hosts give; helm is not started."""
    there = {"redis", "nats"}

    def pull(self: Command, *words: str, **_: Any) -> Completed:
        chart, target = words[1], Path(words[words.index("--destination") + 1])
        if chart not in there:
            return Completed(words, 1, "", "503 Service Unavailable", 0.1)
        (target / f"{chart}.tgz").write_bytes(chart.encode())
        return Completed(words, 0, "", "", 0.1)

    monkeypatch.setattr(Command, "__init__", lambda *_, **__: None)
    monkeypatch.setattr(Command, "run", pull)
    return there


def digest(chart: str) -> str:
    return f"sha256:{hashlib.sha256(chart.encode()).hexdigest()}"


def test_pulled_charts_are_kept_and_locked(settings: Settings, hosts: set[str]) -> None:
    assert [(s.chart, s.kept, s.locked) for s in chart_states(settings)] == [
        ("redis-1.2.3", False, ""), ("nats-2.0.0", False, ""),
    ]  # fmt: skip
    assert [(s.chart, s.kept, s.locked) for s in pull_charts(settings)] == [
        ("redis-1.2.3", True, digest("redis")), ("nats-2.0.0", True, digest("nats")),
    ]  # fmt: skip
    releases = load_releases(settings.platform.helmfile, COMPONENTS).releases
    assert [release.digest for release in releases] == [digest("redis"), digest("nats")]


def test_kept_charts_are_not_pulled_again(settings: Settings, hosts: set[str]) -> None:
    pull_charts(settings)
    hosts.clear()
    assert all(state.kept for state in pull_charts(settings))


def test_one_host_that_is_down_leaves_the_others_kept_and_locked(
    settings: Settings, hosts: set[str]
) -> None:
    hosts.discard("redis")
    with pytest.raises(PermanentError, match=r"redis-1.2.3 of release redis cannot be pulled.*503"):
        pull_charts(settings)
    assert {s.chart: s.kept for s in chart_states(settings)} == {
        "redis-1.2.3": False, "nats-2.0.0": True,
    }  # fmt: skip


def test_a_digest_that_is_locked_is_never_replaced(settings: Settings, hosts: set[str]) -> None:
    lock = settings.platform.helmfile.parent / "charts.lock"
    lock.write_text(f"redis-1.2.3: sha256:{'0' * 64}\n", encoding="utf-8")
    with pytest.raises(PermanentError, match=r"does not match charts\.lock"):
        pull_charts(settings)
    assert f"redis-1.2.3: sha256:{'0' * 64}\n" in lock.read_text(encoding="utf-8")


def test_a_chart_that_is_not_declared_any_more_leaves_the_lock(
    settings: Settings, hosts: set[str]
) -> None:
    lock = settings.platform.helmfile.parent / "charts.lock"
    lock.write_text(f"emqx-1.0.0: sha256:{'0' * 64}\n", encoding="utf-8")
    pull_charts(settings)
    assert "emqx" not in lock.read_text(encoding="utf-8")
