"""A proof records its document outside the bucket, on the Lease that it holds."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pyrage

from archive.bounds import MANIFEST_BYTES
from archive.evidence import signer_of
from archive.evidence_chain import Record
from archive.store import Missing
from operations.backup.component import Vault
from operations.state.verdict_record import recorded
from operations.verify.proof import prove

from ..archive.test_belief import Bucket
from ..stored import Stored, platform_of

SET = "redis-20261124T010000Z-0a1b2c"


class Emptied(Bucket):
    def get(self, key: str, limit: int = MANIFEST_BYTES, version: str = "") -> bytes:
        if key not in self.objects:
            raise Missing(key)
        return super().get(key)


def a_vault(identity: str) -> Vault:
    settings: Any = platform_of(
        Stored(),
        environment="test",
        backup=SimpleNamespace(signers=()),
        verify=SimpleNamespace(signers=(signer_of(identity),)),
    ).settings
    return Vault(settings, Stored(), cast(Any, Emptied()), "uid")


def test_each_proof_of_a_set_is_numbered_and_recorded() -> None:
    identity = str(pyrage.x25519.Identity.generate())
    vault = a_vault(identity)
    said = [prove(vault, identity, SET, run="test", tell=lambda _: None) for _ in range(2)]
    assert [one.verdict for one in said] == ["fail", "fail"]
    assert [one.number for one in said] == [1, 2]
    assert said[1].previous != said[0].previous == ""
    assert recorded(vault.kube, vault.settings, ["redis"]) == {"redis": Record({SET: 2})}


def test_after_a_proof_was_deleted_its_number_is_not_given_again() -> None:
    identity = str(pyrage.x25519.Identity.generate())
    vault = a_vault(identity)
    prove(vault, identity, SET, run="test", tell=lambda _: None)
    emptied = replace(vault, store=cast(Any, Emptied()))
    assert prove(emptied, identity, SET, run="test", tell=lambda _: None).number == 2
