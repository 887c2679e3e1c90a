"""Proofs of restores: good sets pass at L4, damaged ones fail for the right reason, trouble is an error.

All commands run as the service account isa-verify, which has no access to production's Secrets.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from archive.backup.encryption import decrypt
from archive.backup.manifest import Manifest
from archive.evidence.verdicts import Evidence, read_evidence, signer_of
from components import SETS
from operations.backup.prerequisites import read_worker_key
from operations.verify.scratch_pod import LABEL
from sandbox.site import keys
from tests.contract import checked
from tests.damage import STORED, Forger, largest
from tests.losses import LOSSES, NAME

from ..accounts import CONTROL, VERIFY, environ_of, log_in
from .conftest import Backups, small_disk, until

pytestmark = pytest.mark.integration

ISA = str(Path(sys.executable).with_name("isa"))
ENGINES = [name for name in SETS if name != "platform"]
# Those whose proof takes a few seconds; the whole matrix is `make soak`'s.
QUICK = ("postgresql", "redis", "nats", "minio", "qdrant")
# Where what is lost is a definition, not a datum: the manifest knows its name.
DEFINED = ("postgresql", "nats")


@dataclass
class Prover:
    """The verify pool.

    Attributes:
        backups: whose sets are proven.
        kubeconfig: of isa-verify.
        forger: of damaged sets.
    """

    backups: Backups
    kubeconfig: Path
    forger: Forger

    @property
    def environ(self) -> dict[str, str]:
        return environ_of(self.backups.sandbox, self.kubeconfig, ISA_VERIFY__ATTEMPTS="1")

    def isa(self, *arguments: str, code: int = 0, **environ: str) -> Any:
        done = subprocess.run(
            [ISA, "verify", *arguments, "--local", "--json"],
            env={**self.environ, **environ},
            capture_output=True,
            text=True,
            timeout=400,
            check=False,
        )
        assert done.returncode == code, done.stderr + done.stdout
        return checked(["verify", *arguments], done.stdout, done.stderr)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [ISA, "verify", *arguments, "--local", "--json"],
            env=self.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def pods(self, component: str = "") -> list[dict[str, Any]]:
        label = f"{LABEL}={component}" if component else LABEL
        found = self.backups.environment.kube.list("v1", "Pod", VERIFY, label)
        return [pod for pod in found if not pod["metadata"].get("deletionTimestamp")]

    def evidence(self, made: Manifest) -> Evidence:
        store = self.backups.environment.store
        names = [e.key.removeprefix(made.prefix) for e in store.list(made.prefix)]
        newest = max(name for name in names if name.startswith("proof-"))
        return read_evidence(
            store.get(made.prefix + newest),
            newest,
            self.backups.environment.settings.verify.signers,
        )


@pytest.fixture(scope="module")
def prover(backups: Backups, report: Any, tmp_path_factory: pytest.TempPathFactory) -> Prover:
    account = log_in(backups.sandbox, tmp_path_factory.mktemp("verify"), "isa-verify")
    assert account.kubeconfig is not None
    return Prover(
        backups,
        account.kubeconfig,
        Forger(backups.environment.store, backups.identity, read_worker_key(backups.environment)),
    )


@pytest.fixture(scope="module")
def proofs(prover: Prover) -> Any:
    """What `isa verify` says of the newest set of everything."""
    return prover.isa()


@pytest.fixture
def copies(prover: Prover) -> Iterator[list[Manifest]]:
    """Damaged sets that go with the test."""
    made: list[Manifest] = []
    yield made
    for one in made:
        prover.forger.remove(one)


def test_all_seven_engines_are_restored_and_hold_what_the_source_held(proofs: Any) -> None:
    found = {p["component"]: (p["verdict"], p["level"]) for p in proofs["proofs"]}
    assert found == {
        **dict.fromkeys(ENGINES, ("pass", "L4")),
        "platform": ("partial", "L2"),  # no Prefect here, and nothing to restore into
    }
    assert proofs["state"] == "completed"


def test_nothing_of_a_proof_is_left_behind(prover: Prover, proofs: Any) -> None:
    kube = prover.backups.environment.kube
    until(lambda: not kube.list("v1", "Pod", VERIFY, LABEL), "scratch pods are gone")
    for kind in ("Secret", "PersistentVolumeClaim"):

        def none_left(kind: str = kind) -> bool:
            return not [
                x for x in kube.list("v1", kind, VERIFY) if "proof-" in x["metadata"]["name"]
            ]

        until(none_left, f"{kind}s of scratch pods are gone", 120)


def test_the_evidence_is_signed_and_names_what_it_is_about(prover: Prover, proofs: Any) -> None:
    manifest = prover.backups.manifest("redis")
    evidence = prover.evidence(manifest)
    assert (evidence.set, evidence.verdict, evidence.level) == (manifest.id, "pass", "L4")
    assert evidence.compared == len(manifest.fingerprint)
    assert evidence.scratch.startswith("valkey")
    assert {"start", "load", "compare"} <= set(evidence.stages)


@pytest.mark.parametrize(
    ("component", "unit"), [("nats", "stream app/"), ("qdrant", "collection ")]
)
def test_a_set_that_refers_to_an_earlier_one_is_small_and_is_proven(
    component: str, unit: str, prover: Prover
) -> None:
    made = prover.backups.isa("backup", component, "--local")["backups"][0]
    manifest, earlier = prover.backups.environment.backup_chain(made["id"])
    stored = {one.unit for one in manifest.artefacts if not one.stored_in}
    assert not {one for one in stored if one.startswith(unit)}
    assert any(one.unit.startswith(unit) for one in manifest.artefacts)
    assert made["bytes_stored"] < sum(one.stored_size for one in manifest.artefacts) / 5
    assert "sealed" not in {one.digest for one in prover.backups.manifest(component).fingerprint}
    (proof,) = prover.isa(made["id"])["proofs"]
    assert (proof["verdict"], proof["level"]) == ("pass", "L4"), proof["reason"]
    evidence = prover.evidence(manifest)
    assert set(evidence.chain) >= {one.id for one in earlier} > set()


@pytest.mark.parametrize("damage", list(STORED))
def test_what_was_done_to_a_stored_set_is_seen_at_the_lowest_level_that_can(
    damage: str, prover: Prover, copies: list[Manifest]
) -> None:
    make, levels = STORED[damage]
    component = QUICK[list(STORED).index(damage) % len(QUICK)]
    good = prover.backups.manifest(component)
    copies.append(make(prover.forger, good, largest(good)))
    (proof,) = prover.isa(copies[0].id, code=1)["proofs"]
    evidence = prover.evidence(copies[0])
    assert proof["verdict"] == "fail"
    assert evidence.failed_at in levels, proof["reason"]


@pytest.mark.parametrize(
    "component",
    [
        pytest.param(one, marks=pytest.mark.soak if one in ("minio", "qdrant") else [])
        for one in QUICK
    ],
)
def test_one_thing_that_was_not_backed_up_is_missed_by_its_name(
    component: str, prover: Prover, copies: list[Manifest]
) -> None:
    what, lose = LOSSES[component]
    backups = prover.backups
    with backups.access() as access:
        put_back = lose(access)
        try:
            backups.isa("backup", component, "--local")
            promised = backups.manifest(component)
        finally:
            put_back()
        backups.isa("backup", component, "--local")
    copies.append(prover.forger.promising(backups.manifest(component), promised))
    (proof,) = prover.isa(copies[0].id, code=1)["proofs"]
    evidence = prover.evidence(copies[0])
    assert (proof["verdict"], evidence.failed_at, evidence.level) == ("fail", "L4", "L3"), what
    assert evidence.differences
    assert evidence.differences[0].unit in proof["reason"]
    if component in DEFINED:
        assert any(NAME in f"{one.item} {one.what}" for one in evidence.differences)


def test_a_shard_that_is_not_in_the_set_is_missed(prover: Prover, copies: list[Manifest]) -> None:
    good = prover.backups.manifest("redis")
    shard = next(a for a in good.artefacts if a.format == "RDB")
    copies.append(prover.forger.left_out(good, shard.name.removesuffix(".zst.age")))
    prover.isa(copies[0].id, code=1)
    evidence = prover.evidence(copies[0])
    assert evidence.failed_at == "L4"
    assert {d.unit for d in evidence.differences} == {shard.unit}


@pytest.mark.parametrize(
    ("component", "name", "step", "said"),
    [
        pytest.param("redis", "shard-", "check of proof-redis", "RDB", id="redis"),
        pytest.param(
            "postgresql", "base.tar", "verify of proof-postgresql-files", "checksum mismatch for file",
            id="postgresql",
        ),
    ],
)  # fmt: skip
def test_what_was_garbled_before_it_was_sealed_is_refused_by_the_engines_own_tool(
    component: str, name: str, step: str, said: str, prover: Prover, copies: list[Manifest]
) -> None:
    """An RDB, and a file of data in a base backup: the set is sound, what is in it is not."""
    good = prover.backups.manifest(component)
    artefact = next(a for a in good.artefacts if a.name.startswith(name))
    copies.append(prover.forger.garbled(good, artefact.name.removesuffix(".zst.age")))
    (proof,) = prover.isa(copies[0].id, code=1)["proofs"]
    evidence = prover.evidence(copies[0])
    assert (proof["verdict"], evidence.failed_at) == ("fail", "L2")
    assert step in proof["reason"]
    # the tool's own words may quote a key: they lie beside the evidence, for who has the set's keys
    words = io.BytesIO()
    key = copies[0].prefix + evidence.words
    decrypt(prover.backups.environment.store, key, prover.backups.identity, words)
    assert said.encode() in words.getvalue()
    assert said not in proof["reason"]


def test_a_tar_that_leaves_its_directory_fails_the_set_and_is_not_tried_again(
    prover: Prover, copies: list[Manifest]
) -> None:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("../../isa-outside"))
    good = prover.backups.manifest("postgresql")
    copies.append(prover.forger.with_content(good, "base.tar", made.getvalue()))
    (proof,) = prover.isa(copies[0].id, code=1)["proofs"]
    assert (proof["verdict"], prover.evidence(copies[0]).failed_at) == ("fail", "L2"), proof
    assert "not a valid archive" in proof["reason"]


def test_files_of_another_major_version_are_not_held_against_the_set(
    prover: Prover, copies: list[Manifest]
) -> None:
    """As after an upgrade: the image refuses the files of the version before, and takes its dumps."""
    good = prover.backups.manifest("postgresql")
    engine = good.engine.model_copy(update={"version": "9.6.24"})
    older = prover.forger.copy(good, engine=engine)
    copies.extend((older, prover.forger.garbled(older, "base.tar")))
    (proof,) = prover.isa(copies[1].id)["proofs"]
    assert (proof["verdict"], proof["level"]) == ("partial", "L4"), proof
    assert "the backup is from 9.6.24 (verify of proof-postgresql-files" in proof["reason"]


def test_consumers_that_a_snapshot_left_out_are_made_again(
    prover: Prover, copies: list[Manifest]
) -> None:
    """As on servers before 2.15, which list a consumer of fewer replicas and leave it out of the snapshot."""
    backups = prover.backups
    with backups.access() as access:
        put_away = LOSSES["nats"][1](access)
        try:
            backups.isa("backup", "nats", "--local")
            listed = backups.manifest("nats")
        finally:
            put_away()
        backups.isa("backup", "nats", "--local")
    snapshot = backups.manifest("nats")
    copies.append(prover.forger.with_lists_of(snapshot, listed, "consumers.json"))
    (proof,) = prover.isa(copies[0].id)["proofs"]
    assert (proof["verdict"], proof["level"]) == ("pass", "L4"), proof


def test_a_full_disk_is_an_error_and_no_verdict(prover: Prover, tmp_path: Path) -> None:
    with small_disk(tmp_path / "spool") as spool:
        (proof,) = prover.isa("redis", code=1, ISA_BACKUP__SPOOL=str(spool))["proofs"]
    assert (proof["verdict"], proof["level"]) == ("error", ""), proof
    assert "a disk is full" in proof["reason"]


def test_a_scratch_engine_that_is_killed_is_an_error_and_no_verdict(prover: Prover) -> None:
    running = prover.start("postgresql")
    until(lambda: any(_started(pod) for pod in prover.pods("postgresql")), "an engine runs", 90)
    pod = next(pod for pod in prover.pods("postgresql") if _started(pod))
    prover.backups.environment.kube.delete("v1", "Pod", pod["metadata"]["name"], VERIFY)
    said, _ = running.communicate(timeout=400)
    (proof,) = json.loads(said)["proofs"]
    assert proof["verdict"] == "error", said
    assert running.returncode == 1


def test_what_a_killed_proof_left_is_removed_by_the_next_one(prover: Prover) -> None:
    running = prover.start("redis")
    until(lambda: len(prover.pods("redis")) == 3, "scratch engines are made", 90)
    left = {pod["metadata"]["name"] for pod in prover.pods("redis")}
    running.kill()
    running.wait()
    assert prover.isa("redis")["proofs"][0]["verdict"] == "pass"
    assert not left & {pod["metadata"]["name"] for pod in prover.pods("redis")}


def test_a_scratch_engine_in_the_live_engines_namespace_is_refused(prover: Prover) -> None:
    where = prover.backups.environment.settings.kubernetes.namespace
    backups = prover.backups
    done = subprocess.run(
        [ISA, "verify", "nats", "--local", "--json"],
        # with every right in the world: it is we who must refuse, not the API server
        env={**backups.sandbox.environ(), "ISA_KUBERNETES__VERIFY_NAMESPACE": where},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 2
    assert "each need a namespace of their own" in done.stderr
    assert not backups.environment.kube.list("v1", "Pod", where, LABEL)


def test_another_key_than_the_verify_pools_opens_nothing(prover: Prover) -> None:
    report = prover.isa("nats", code=1, ISA_VERIFY__IDENTITY_SECRET="isa-store-verify")
    assert "age private key" in report["message"]


def test_the_offline_break_glass_key_alone_restores(prover: Prover) -> None:
    backups = prover.backups
    key = keys.identity_file(backups.sandbox.directory, "break-glass").read_text()
    name = "isa-break-glass"
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": CONTROL},
        "stringData": {"identity": key},
    }
    backups.environment.kube.create(secret)
    try:
        done = subprocess.run(
            [ISA, "verify", "redis", "--local", "--json"],
            env={**backups.sandbox.environ(), "ISA_VERIFY__IDENTITY_SECRET": name},
            capture_output=True,
            text=True,
            timeout=400,
            check=False,
        )
    finally:
        backups.environment.kube.delete("v1", "Secret", name, CONTROL)
    assert json.loads(done.stdout)["proofs"][0]["verdict"] == "pass", done.stdout


def test_proofs_of_a_set_are_listed_in_order(prover: Prover, proofs: Any) -> None:
    manifest = prover.backups.manifest("emqx")
    catalogue = prover.backups.environment.catalogue(["emqx"])
    assert [proof.verdict for proof in catalogue.proofs[manifest.id]] == ["pass"]
    assert manifest.id in catalogue.proven


def test_whose_word_counts_is_told(prover: Prover) -> None:
    administrator = str(prover.backups.sandbox.kubeconfig)
    answer = prover.backups.isa("verify", "signer", ISA_KUBERNETES__KUBECONFIG=administrator)
    told = answer["signer"]
    assert told == signer_of(prover.backups.identity)
    assert told in prover.backups.environment.settings.verify.signers


def _started(pod: dict[str, Any]) -> bool:
    statuses = pod.get("status", {}).get("containerStatuses", [])
    return bool(statuses) and "running" in statuses[0].get("state", {})
