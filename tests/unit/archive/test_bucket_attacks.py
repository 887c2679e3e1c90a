"""Whoever can write to the bucket, but has no key: nothing of it counts, nothing breaks, nothing is deleted for it."""

from __future__ import annotations

import hashlib
import json
import time
import tracemalloc
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest
from pydantic import ValidationError

from archive.backup.manifest import (
    Artefact,
    Consistency,
    Manifest,
    Measure,
    new_identity,
    read_manifest,
)
from archive.bounds import EVIDENCE_BYTES, MANIFEST_BYTES, PROOFS
from archive.catalogue.listing import read_catalogue
from archive.evidence.verdicts import Difference, Evidence, file_of, read_evidence, signer_of
from archive.object_store.entries import Entry, PendingUpload, Version
from archive.signing import Trust, canonical
from components import SETS
from errors import PermanentError
from operations.backup.retention import apply_retention, plan_retention
from operations.environment.environment import Environment
from operations.restore.credentials import secret_of
from tests.environments import environment_with

from ..stored import Stored, settings_of
from .test_belief import LATER, Bucket
from .test_belief import Vault as Proven
from .test_retention import KEY, RULES, SIGNERS, a_set

GENUINE = a_set(3)
BODY: dict[str, Any] = json.loads(json.dumps(GENUINE.model_dump(mode="json")))


def hashed(**changes: Any) -> bytes:
    """What everybody can make: a manifest with a hash that fits, and no signature."""
    body = {**BODY, **changes}
    return json.dumps({**body, "sha256": hashlib.sha256(canonical(body)).hexdigest()}).encode()


DOCUMENTS = {
    "nothing": b"",
    "a list": b"[]",
    "null": b"null",
    "a number": b"1",
    "a text": b'"manifest"',
    "lists in lists": b"[" * 200_000,
    "objects in objects": b'{"a":' * 200_000,
    "a number of 100,000 digits": b'{"format": 1' + b"0" * 100_000 + b"}",
    "not UTF-8": b'{"format": "\xff"}',
    "half of a pair of surrogates": b'{"format": 1, "id": "\\ud800"}',
    "not a number": b'{"format": NaN}',
    "a time that UTC has not": hashed(begun="9999-12-31T23:59:59-14:00"),
    "a year before all": hashed(begun="0001-01-01T00:00:00+14:00"),
    "a time without a zone": hashed(begun="2026-01-01T00:00:00"),
    "an unknown field": hashed(more="x"),
    "a name of 1 MiB": hashed(slot="x" * (1 << 20)),
    "an id with a way up": hashed(id=f"{GENUINE.id}/../x"),
    "an id in a line of its own": hashed(id=f"x\n{GENUINE.id}"),
    "all as it should be, but for the signature": hashed(),
}


@pytest.mark.parametrize("what", DOCUMENTS)
def test_a_document_of_any_kind_is_refused_in_a_short_sentence(what: str) -> None:
    with pytest.raises(PermanentError) as refusal:
        read_manifest(DOCUMENTS[what], GENUINE.own_key, SIGNERS)
    assert len(str(refusal.value)) < 600
    with pytest.raises(PermanentError) as refusal:
        read_evidence(DOCUMENTS[what], GENUINE.prefix, ["00" * 32])
    assert len(str(refusal.value)) < 600


@pytest.mark.parametrize(
    "needed", ["nats-20250101T010000Z-000000", "redis-20990101T010000Z-000000"]
)
def test_a_set_needs_earlier_sets_of_its_component_only(needed: str) -> None:
    forged = GENUINE.model_copy(update={"needs": (needed,)})
    with pytest.raises(PermanentError, match="not an earlier one"):
        read_manifest(forged.signed(KEY), forged.own_key, SIGNERS)


@pytest.mark.parametrize(
    ("model", "fields"),
    [
        (Manifest, {"id": f"{GENUINE.id}\n"}),
        (Manifest, {"component": "redis/../nats"}),
        (Manifest, {"environment": "production/redis"}),
        (Manifest, {"cluster": "uid\x1b[2J"}),
        (Manifest, {"needs": ["../../staging"]}),
        (Manifest, {"recipients": ["age1\n"]}),
        (Evidence, {"words": "../../other/words.txt"}),
        (Evidence, {"set": "x/../y"}),
        (Evidence, {"chain": {"x": "0" * 64}}),
        (Evidence, {"manifest_sha256": "0"}),
    ],
)
def test_what_becomes_a_key_or_a_path_has_a_pattern(model: Any, fields: dict[str, Any]) -> None:
    proof = {
        "set": GENUINE.id,
        "component": "redis",
        "environment": "test",
        "manifest_sha256": "",
        "verdict": "fail",
        "level": "",
        "begun": GENUINE.begun,
        "seconds": 1,
    }
    known = BODY if model is Manifest else proof
    assert model.model_validate(known)
    with pytest.raises(ValidationError):
        model.model_validate({**known, **fields})


def _strings(model: Any, seen: set[Any]) -> Iterator[tuple[str, Any]]:
    """Every text of a JSON schema: where it is, and its schema."""
    for name, part in {"": model, **model.get("$defs", {})}.items():
        for field, schema in part.get("properties", {}).items():
            for one in (schema, *schema.get("anyOf", ()), schema.get("items", {}),
                        schema.get("additionalProperties", {})):  # fmt: skip
                if isinstance(one, dict) and one.get("type") == "string":
                    yield f"{name}.{field}", one


@pytest.mark.parametrize("model", [Manifest, Evidence])
def test_every_text_has_a_bound(model: Any) -> None:
    free = [
        where
        for where, schema in _strings(model.model_json_schema(), set())
        if not schema.keys() & {"pattern", "maxLength", "const", "enum", "format"}
    ]
    assert free == []


# ---------------------------------------------------------------------- with a catalogue
class Watched(Bucket):
    """Objects in a dictionary, with the sizes that the listing says.

    Attributes:
        sizes: of objects that are larger than what is kept of them here.
    """

    def __init__(self) -> None:
        super().__init__()
        self.sizes: dict[str, int] = {}
        self.deleted: list[str] = []
        self.versioned = True

    def list(self, prefix: str) -> list[Entry]:
        at = datetime.now(UTC)
        return [
            Entry(key, self.sizes.get(key, 1), at)
            for key in sorted(self.objects)
            if key.startswith(prefix)
        ]

    def get(self, key: str, limit: int = MANIFEST_BYTES, version: str = "") -> bytes:
        assert key not in self.sizes, f"{key} was read"
        return super().get(key, limit)

    def pending(self, prefix: str) -> tuple[PendingUpload, ...]:
        return ()

    def versions(self, prefix: str) -> Iterator[Version]:
        yield from (Version(one.key, "", one.size, one.modified) for one in self.list(prefix))

    def purge(self, key: str) -> None:
        self.deleted.append(key)
        self.objects.pop(key, None)


@pytest.fixture
def environment() -> Environment:
    settings = settings_of(
        environment="test",
        backup=SimpleNamespace(signers=SIGNERS, retention=RULES),
        verify=SimpleNamespace(signers=()),
    )
    made = environment_with(settings, kube=Stored(), store=cast(Any, Watched()), cluster_uid="uid")
    for night in range(60):
        one = a_set(night)
        cast(Any, made.store).put(one.own_key, one.signed(KEY))
    return made


def test_a_manifest_of_300_mib_is_not_read(environment: Environment) -> None:
    store: Any = environment.store
    store.sizes[GENUINE.own_key] = 300 << 20
    found = environment.catalogue(["redis"])
    assert len(found.sets) == 59
    assert f"{300 << 20} bytes" in found.broken[GENUINE.own_key]


def test_a_document_of_too_many_values_is_not_parsed(environment: Environment) -> None:
    junk = b'{"format":1,"topology":{"a":[' + b"{}," * 5_000_000 + b"{}]}}"
    tracemalloc.start()
    try:
        with pytest.raises(PermanentError, match="was not parsed"):
            read_manifest(junk, GENUINE.own_key, SIGNERS)
        with pytest.raises(PermanentError, match="was not parsed"):
            read_evidence(junk, GENUINE.prefix, ["00" * 32])
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_large_manifests_are_read_one_at_a_time(environment: Environment) -> None:
    reading: list[str] = []
    most: list[int] = []

    class Slow(Watched):
        def get(self, key: str, limit: int = MANIFEST_BYTES, version: str = "") -> bytes:
            reading.append(key)
            most.append(len(reading))
            time.sleep(0.005)
            reading.remove(key)
            return self.objects[key]

    store: Any = Slow()
    store.objects = cast(Any, environment.store).objects
    store.sizes = dict.fromkeys(list(store.objects)[:8], 2 << 20)
    found = read_catalogue(store, "test", ["redis"], Trust(SIGNERS, ()))
    assert len(found.sets) == 60
    assert set(most[-8:]) == {1}
    assert max(most) > 1  # small ones are read together


def test_evidence_is_skipped_by_its_listed_size_and_by_its_number() -> None:
    place = Proven()
    place.say("pass", LATER)
    junk = place.say("fail", LATER + timedelta(hours=1), place.other)
    place.bucket.objects[junk] = b"{" * (2 << 20)
    found = place.read()
    assert f"{2 << 20} bytes" in found.disbelieved[junk]
    assert found.proven == {place.made.id}

    for at in range(PROOFS):
        place.bucket.put(file_of(place.made.prefix, LATER + timedelta(days=2 + at), "pass"), b"{}")
    place.bucket.reads = 0
    found = place.read()
    assert found.proven == set()
    assert f"at most {PROOFS} are read" in found.gaps[place.made.id]
    assert place.bucket.reads == 1  # its manifest


def test_a_verdict_with_many_differences_is_stored_so_that_it_is_read_again() -> None:
    place = Proven()
    many = tuple(Difference(unit="u", item="i", what="x" * 5_000) for _ in range(1_000))
    key = place.say("fail", LATER, differences=many, counted_only=("y" * 900,) * 1_000)
    assert len(place.bucket.get(key)) <= EVIDENCE_BYTES
    said = read_evidence(place.bucket.get(key), key, [signer_of(place.pool)])
    assert said.differences[0] == many[0]
    assert said.differences[-1].what == f"and {1_000 - len(said.differences) + 1} more"


HOSTILE = {
    "manifests of the future": [
        (a_set(day).own_key, a_set(day).signed(KEY)) for day in range(9000, 9400)
    ],
    "unsigned manifests of today": [(a_set(day + 0.5).own_key, hashed()) for day in range(60)],
    "a manifest that names staging's set": [
        (GENUINE.own_key, a_set(3, environment="staging").signed(KEY))
    ],
    "a manifest that names another component's set": [
        (GENUINE.own_key, a_set(3, component="nats").signed(KEY))
    ],
    "lists in lists": [(GENUINE.own_key, b"[" * 200_000)],
}


@pytest.mark.parametrize("how", HOSTILE)
def test_retention_deletes_nothing_for_a_hostile_manifest(
    how: str, environment: Environment
) -> None:
    store: Any = environment.store
    before = plan_retention(environment, ["redis"])
    for key, document in HOSTILE[how]:
        store.put(key, document)
    assert before.going
    plan = plan_retention(environment, ["redis"])
    assert plan.going == ()
    assert "no backup of redis is removed" in plan.problem
    held = apply_retention(environment, before)
    assert set(held) == {one.id for one in before.going}
    assert store.deleted == []


def test_a_manifest_that_cannot_be_read_stops_neither_other_components_nor_any_lock(
    environment: Environment,
) -> None:
    store: Any = environment.store
    nats = [
        a_set(day, id=new_identity("nats", a_set(day).begun, "0a1b2c"), component="nats")
        for day in range(60)
    ]
    for one in nats:
        store.put(one.own_key, one.signed(KEY))
    store.put(GENUINE.own_key, b"x")

    plan = plan_retention(environment, ["redis", "nats"])
    assert apply_retention(environment, plan) == {}

    assert {one.component for one in plan.going} == {"nats"}
    assert {key.split("/")[1] for key in store.deleted} == {"nats"}
    readable = {one.id for one in environment.catalogue(["redis"]).sets}
    assert len(readable) == 59
    assert readable < plan.locked.keys()
    assert GENUINE.id in plan.problem


def test_a_hostile_manifest_hides_no_genuine_set_and_fills_no_slot(
    environment: Environment,
) -> None:
    store: Any = environment.store
    newest = a_set(59)
    for key, document in (*HOSTILE["manifests of the future"], *HOSTILE["lists in lists"]):
        store.put(key, document)
    found = environment.catalogue(["redis"])
    assert found.latest("redis") == read_manifest(newest.signed(KEY), newest.own_key, SIGNERS)
    assert len(found.sets) == 59
    assert len(found.broken) == 401


def test_a_set_of_another_bucket_below_the_same_name_counts_for_nothing_else() -> None:
    bucket: Any = Bucket()
    other = a_set(3, environment="staging")
    bucket.put(other.own_key.replace("staging", "test"), other.signed(KEY))
    found = read_catalogue(bucket, "test", SETS, Trust(SIGNERS, ()))
    assert found.sets == ()
    assert len(found.broken) == 1


# ---------------------------------------------------------------------- what a set may hold
@pytest.mark.parametrize("name", ["../x", "/etc/cron.d/x", "a/../../x", "a\\..\\x", "a\x00b"])
def test_an_artefact_has_no_name_that_leads_elsewhere(name: str) -> None:
    with pytest.raises(ValidationError):
        Artefact(
            name=name, unit="u", format="f", plain_size=0, plain_sha256="0" * 64, stored_size=0,
            stored_sha256="0" * 64, part_size=1,
        )  # fmt: skip


def test_texts_of_an_engine_are_bounded() -> None:
    long = "x" * 200_000
    assert len(Measure(unit=long, item="i", count=1, origin="source").unit) < 5_000
    with pytest.raises(ValidationError):
        Consistency(unit="u", point=long, begun=GENUINE.begun, ended=GENUINE.begun + timedelta(1))


@pytest.mark.parametrize(
    "entry",
    [
        {"kind": "ClusterRoleBinding", "metadata": {"name": "admin"}},
        {"kind": "Secret", "metadata": {"name": "../../clusterrolebindings/admin"}},
        {"kind": "Secret", "metadata": {"name": "a\nb"}},
        {"kind": "Secret", "metadata": {}},
        {"kind": "Secret", "metadata": []},
        "Secret",
    ],
)
def test_a_platform_set_makes_secrets_of_their_own_names_only(entry: Any) -> None:
    with pytest.raises(PermanentError, match="nothing was created"):
        secret_of(entry, "isa-cloud-production")
