"""An edit of helmfile.yaml is understood as helmfile understands it, or told; never half, and never by a traceback."""

# ruff: noqa: E501 (one edit a line)
from __future__ import annotations

from pathlib import Path

import pytest

from cluster.helm.releases import Release, load_releases
from errors import ConfigurationError

GOOD = """\
repositories:
  - name: repo
    url: https://charts.example
helmDefaults:
  wait: true
releases:
  - name: redis
    namespace: isa
    chart: repo/redis
    version: 1.2.3
    labels: {component: redis}
"""


def load(tmp_path: Path, text: str | bytes) -> tuple[Release, ...]:
    file = tmp_path / "helmfile.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_releases(file, ("redis", "nats")).releases


def faults(tmp_path: Path, text: str | bytes) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        load(tmp_path, text)
    return [str(fault).removeprefix(f"{tmp_path}/") for fault in caught.value.faults]


EDITS = {
    "a duration as text": ("wait: true", "timeout: 15m", "helmDefaults.timeout: input should be a valid integer"),
    "a negative duration": ("wait: true", "timeout: -5", "helmDefaults.timeout: input should be greater than 0"),
    "no seconds at all": ("wait: true", "timeout: 0", "helmDefaults.timeout: input should be greater than 0"),
    "a text for true": ("wait: true", "wait: 'false'", "helmDefaults.wait: input should be a valid boolean"),
    "a version that is a number": ("1.2.3", "1.10", "releases[redis].version: is the number 1.1: put it in quotes"),
    "a range for a version": ("1.2.3", "~1.2", "releases[redis].version: '~1.2' is not an exact version"),
    "labels that are a text": ("{component: redis}", "x", "releases[redis].labels: input should be a valid dictionary"),
    "a label that is a number": ("component: redis", "component: redis, tier: 1", "releases[redis].labels.tier: is the number 1"),
    "releases that are a map": (GOOD[GOOD.index("releases:"):], "releases: {redis: {name: redis}}", "releases: input should be a valid tuple"),
    "values that are a text": ("version: 1.2.3", "version: 1.2.3\n    values: x", "releases[redis].values: input should be a valid tuple"),
    "a list for a values file": ("version: 1.2.3", "version: 1.2.3\n    values: [[x]]", "releases[redis].values[0]: must be a file or a map"),
    "an empty entry of values": ("version: 1.2.3", "version: 1.2.3\n    values: [~]", "releases[redis].values[0]: must be a file or a map"),
    "a template of values": ("version: 1.2.3", "version: 1.2.3\n    values: [a.gotmpl]", "releases[redis].values[0]: helmfile would render"),
    "a template in a field": ("chart: repo/redis", "chart: 'repo/{{ .Release.Name }}'", "releases[0].chart: has {{ }}"),
    "needs that are a text": ("version: 1.2.3", "version: 1.2.3\n    needs: x", "releases[redis].needs: input should be a valid tuple"),
    "a need of another cluster": ("version: 1.2.3", "version: 1.2.3\n    needs: [a/isa/redis]", "releases[redis].needs: 'a/isa/redis' names another cluster"),
    "rollbacks by helm": ("wait: true", "atomic: true", "helmDefaults.atomic: must be false or left out"),
    "a clean-up by helm": ("wait: true", "cleanupOnFail: true", "helmDefaults.cleanupOnFail: must be false or left out"),
    "a namespace by helm": ("wait: true", "createNamespace: true", "helmDefaults.createNamespace: must be false or left out"),
    "dependencies that are built": ("wait: true", "skipDeps: false", "helmDefaults.skipDeps: must be true or left out"),
    "a key that only helmfile obeys": ("version: 1.2.3", "version: 1.2.3\n    installed: false", "releases[redis].installed: is not a key that isa supports"),
    "a misspelt key": ("version: 1.2.3", "version: 1.2.3\n    timout: 5", "releases[redis].timout: is not a key that isa supports (did you mean timeout?)"),
    "a misspelt key of a repository": ("url:", "uri:", "repositories[repo].uri: is not a key that isa supports (did you mean url?)"),
    "a key that stands twice": ("version: 1.2.3", "version: 1.2.3\n    version: 1.2.4", "key 'version' is defined twice, again in line 11"),
    "a repository that stands twice": ("helmDefaults:", "  - {name: repo, url: 'https://b'}\nhelmDefaults:", "repositories[repo]: is declared twice"),
    "an address without its protocol": ("https://charts.example", "charts.example", "repositories[repo].url: must be an address with https://"),
    "no name": ("name: redis\n    ", "", "releases[0].name: is missing"),
    "a name that no cluster takes": ("name: redis", "name: Redis!", "releases[Redis!].name: string should match pattern"),
    "a release without a chart": ("chart: repo/redis", "chart:", "releases[redis].chart: is missing"),
    "no releases": (GOOD[GOOD.index("releases:"):], "releases: []", "releases: is empty"),
    "a list in place of the file": (GOOD, "- a", "must be one map"),
    "an empty file": (GOOD, "", "must be one map"),
    "two documents": ("releases:", "---\nreleases:", "must be one map"),
    "something that is no YAML": ("releases:", "releases: [", "cannot be read as YAML"),
}  # fmt: skip


@pytest.mark.parametrize("edit", EDITS)
def test_is_told_with_its_place(tmp_path: Path, edit: str) -> None:
    old, new, told = EDITS[edit]
    assert old in GOOD
    found = faults(tmp_path, GOOD.replace(old, new, 1))
    assert any(f"helmfile.yaml: {told}" in fault for fault in found), found


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    text = GOOD.replace("wait: true", "wait: 1").replace("1.2.3", "1.10").replace("url", "uri")
    places = {fault.split(": ")[1] for fault in faults(tmp_path, text)}
    assert places >= {"helmDefaults.wait", "releases[redis].version", "repositories[repo].uri"}


def test_a_fault_of_form_hides_no_other_fault(tmp_path: Path) -> None:
    text = GOOD.replace(
        "version: 1.2.3",
        "version: 1.2.3\n    timout: 5\n    needs: [nats]\n    values: [absent.yaml]",
    ).replace("component: redis", "component: redys")
    found = "\n".join(faults(tmp_path, text))
    assert "releases[redis].timout: is not a key" in found
    assert "releases[redis].needs: unknown release 'nats'" in found
    assert (
        "releases[redis].values[0]: file " in found
        and "absent.yaml does not exist" in found
        and "absent.yaml does not exist" in found
        and "absent.yaml does not exist" in found
    )
    assert "releases[redis].labels.component: unknown component 'redys'" in found


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("1.2.3", "1.10"),
        ("{component: redis}", "x"),
        ("url:", "uri:"),
        ("chart: repo/redis", "chart: 5"),
        ("version: 1.2.3", "version: 1.2.3\n    values: [[x], absent.yaml]"),
        ("labels: {component: redis}", "labels: {component: redis}\n    needs: [redis, 5]"),
    ],
)  # fmt: skip
def test_what_follows_from_a_fault_is_not_told_as_another_one(
    tmp_path: Path, old: str, new: str
) -> None:
    found = faults(tmp_path, GOOD.replace(old, new))
    assert not [fault for fault in found if "unknown" in fault or "not declared" in fault], found
    assert not [
        fault
        for fault in found
        if "no file" in fault or ("is missing" in fault and "version" in fault)
    ], found


def test_a_file_in_latin_1_is_told(tmp_path: Path) -> None:
    (fault,) = faults(tmp_path, ("# für\n" + GOOD).encode("latin-1"))
    assert "helmfile.yaml: is not UTF-8: byte 0xfc at offset 3" in fault


@pytest.mark.usefixtures("latin_1")
def test_the_locale_does_not_matter(tmp_path: Path) -> None:
    assert load(tmp_path, GOOD.replace("url: https", "url: https") + "# für €\n")


@pytest.fixture
def latin_1(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("locale.getencoding", lambda: "latin-1", raising=False)
    monkeypatch.setenv("LC_ALL", "C")


def test_a_key_without_a_value_is_an_absent_one(tmp_path: Path) -> None:
    (release,) = load(
        tmp_path, GOOD.replace("version: 1.2.3", "version: 1.2.3\n    values:\n    needs:")
    )
    assert (release.values, release.needs) == ((), ())


def test_the_history_that_helmfile_would_keep_is_kept(tmp_path: Path) -> None:
    (release,) = load(tmp_path, GOOD.replace("wait: true", "historyMax: 3"))
    assert release.history == 3


def test_a_values_file_is_checked_before_helm_reads_it(tmp_path: Path) -> None:
    (tmp_path / "v.yaml").write_text("a: 1\nb: 2\na: 3\n", encoding="utf-8")
    (fault,) = faults(
        tmp_path, GOOD.replace("version: 1.2.3", "version: 1.2.3\n    values: [v.yaml]")
    )
    assert fault.startswith("v.yaml: key 'a' is defined twice, again in line 3")


def test_a_mirror_takes_the_place_of_a_repository(tmp_path: Path) -> None:
    file = tmp_path / "helmfile.yaml"
    file.write_text(GOOD, encoding="utf-8")
    (by_oci,) = load_releases(file, ("redis",), {"repo": "oci://harbor.example/charts"}).releases
    (by_http,) = load_releases(file, ("redis",), {"repo": "https://mirror.example/"}).releases
    assert (by_oci.chart, by_oci.repository) == ("oci://harbor.example/charts/redis", "")
    assert (by_http.chart, by_http.repository) == ("redis", "https://mirror.example")
