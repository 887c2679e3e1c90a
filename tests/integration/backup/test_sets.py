"""A backup of everything: one set a component, whole, sealed, listed, and made once a night."""

from __future__ import annotations

import json
import re
import subprocess
from importlib import import_module
from pathlib import Path
from typing import Any

import psycopg
import pytest

from archive.backup.manifest import Measure
from archive.backup.reader import Damaged, SetReader
from archive.catalogue.check import look
from archive.catalogue.listing import find_set
from cluster.credentials import read_secret
from components import SETS
from components.postgresql.client import at_primary
from components.postgresql.connection.session import SESSION
from components.postgresql.fingerprint import measure_database
from errors import PermanentError
from sandbox.seed import words

from .conftest import SLOT, Backups

pytestmark = pytest.mark.integration

ENGINES = [name for name in SETS if name != "platform"]
# What the sample data is full of.
PLAINTEXT = (
    *(f"{first} {last}".encode() for first in words.FIRST for last in words.LAST),
    *(city.encode() for city in words.CITIES if not city.isascii()),
)


def test_every_component_gets_a_set_and_the_state_says_that_one_is_partial(report: Any) -> None:
    outcomes = {backup["component"]: backup["outcome"] for backup in report["backups"]}
    assert outcomes == {**dict.fromkeys(ENGINES, "complete"), "platform": "partial"}
    assert report["state"] == "failed"
    assert all(backup["bytes_read"] and backup["bytes_stored"] for backup in report["backups"])


def test_the_catalogue_lists_them(backups: Backups, report: Any) -> None:
    listed = {one["id"] for one in backups.isa("backups")["backups"]}
    assert {backup["id"] for backup in report["backups"]} <= listed


def test_a_second_run_of_the_same_night_makes_only_what_is_not_whole(
    backups: Backups, report: Any
) -> None:
    again = backups.isa("backup", "redis", "nats", "--local", "--slot", SLOT)
    first = {backup["component"]: backup["id"] for backup in report["backups"]}
    assert [(b["outcome"], b["id"]) for b in again["backups"]] == [
        ("exists", first["redis"]),
        ("exists", first["nats"]),
    ]


@pytest.mark.parametrize("component", list(SETS))
def test_every_byte_can_be_read_back(component: str, backups: Backups, report: Any) -> None:
    manifest = backups.manifest(component)
    assert look(backups.environment.store, manifest) == []
    _, earlier = backups.environment.backup_chain(manifest.id)
    reader = SetReader(backups.environment.store, manifest, backups.identity, earlier)
    reader.read_rest()
    assert {manifest.key(artefact) for artefact in manifest.artefacts} <= reader.whole


@pytest.mark.parametrize("component", ENGINES)
def test_the_manifest_says_what_was_there(component: str, backups: Backups, report: Any) -> None:
    manifest = backups.manifest(component)
    assert manifest.engine.version
    assert manifest.consistency
    assert manifest.not_covered == import_module(f"components.{component}.backup").NOT_COVERED
    measured = {(m.unit, m.item): m for m in manifest.fingerprint}
    assert any(m.count and m.digest for m in measured.values())
    assert len(measured) == len(manifest.fingerprint)  # no two of one name


@pytest.mark.parametrize("harm", ["flip", "cut"])
@pytest.mark.parametrize("component", list(SETS))
def test_a_flipped_bit_or_a_missing_end_is_found(
    component: str, harm: str, backups: Backups, report: Any
) -> None:
    store = backups.environment.store
    manifest = backups.manifest(component)
    for artefact in manifest.artefacts:
        key = manifest.key(artefact)
        whole = store.get(key)
        if not whole:  # the index of a store that was empty
            continue
        middle = len(whole) // 2
        flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
        store.put(key, flipped if harm == "flip" else whole[:-1])
        try:
            only = manifest.model_copy(update={"artefacts": (artefact,)})
            with pytest.raises(Damaged, match=re.escape(artefact.name)):
                SetReader(store, only, backups.identity).read_rest()
        finally:
            store.put(key, whole)
    document = store.get(manifest.prefix + "manifest.json")
    place = document.index(b'"count"')
    store.put(
        manifest.prefix + "manifest.json", document[:place] + b'"c0unt"' + document[place + 7 :]
    )
    try:
        with pytest.raises(PermanentError):
            find_set(store, "sandbox", manifest.id, backups.environment.trust)
    finally:
        store.put(manifest.prefix + "manifest.json", document)


def test_the_words_that_are_looked_for_are_in_the_data(backups: Backups, report: Any) -> None:
    plain = backups.fetch(backups.manifest("postgresql"), "databases/isa.dump")
    assert sum(word in plain for word in PLAINTEXT) > 50


def test_neither_data_nor_secrets_are_readable_in_the_bucket(backups: Backups, report: Any) -> None:
    store = backups.environment.store
    secrets = _secrets(backups)
    assert len(secrets) > 10
    for entry in store.list("sandbox/"):
        body = store.get(entry.key)
        for word in (*PLAINTEXT, *secrets):
            assert word not in body, f"{entry.key} holds {word!r}"


@pytest.mark.parametrize("component", ["nats", "minio"])
def test_a_set_is_locked_for_as_long_as_the_settings_say(component: str, backups: Backups) -> None:
    backups.isa("backup", component, "--local", ISA_BACKUP__OBJECT_LOCK_DAYS="1")
    manifest, store = backups.manifest(component), backups.environment.store
    for key in (manifest.own_key, *map(manifest.key, manifest.artefacts)):
        with pytest.raises(PermanentError):
            store.purge(key)
    assert look(store, manifest) == []


def test_secrets_are_in_no_output_and_no_process_arguments(
    backups: Backups, tmp_path: Path
) -> None:
    watcher = subprocess.Popen(
        ["sh", "-c", f"while :; do cat /proc/[0-9]*/cmdline 2>/dev/null >> {tmp_path}/seen; done"]
    )
    try:
        done = backups.isa("backup", "postgresql", "redis", "--local")
    finally:
        watcher.kill()
        watcher.wait()
    seen = (tmp_path / "seen").read_bytes() + json.dumps(done).encode()
    assert b"pg_basebackup" in seen  # the watcher did look
    for word in _secrets(backups):
        assert word not in seen


def _secrets(backups: Backups) -> list[bytes]:
    """Every password of the platform."""
    namespace = backups.environment.settings.kubernetes.namespace
    found = []
    for secret in backups.environment.kube.list("v1", "Secret", namespace):
        if secret.get("type") == "helm.sh/release.v1":
            continue
        values = read_secret(backups.environment.kube, namespace, secret["metadata"]["name"]) or {}
        found += [value.partition("/")[2] or value for value in values.values()]
    return [value.encode() for value in found if len(value) >= 12]


def test_a_large_object_of_more_than_a_gibibyte_is_measured(backups: Backups) -> None:
    def contents(connection: psycopg.Connection[Any]) -> Measure:
        item = "contents of large objects"
        found = measure_database(connection, "isa", {item})
        return next(one for one in found if one.item == item)

    with backups.access() as access, at_primary(access, "isa", *SESSION) as connection:
        before = contents(connection)
        with connection.transaction(force_rollback=True):
            connection.execute("SELECT lo_put(lo_create(0), 3 << 29, 'the end of 1.5 GiB')")
            after = contents(connection)
    assert (after.count, after.digest != before.digest) == (before.count + 1, True)
