"""A proof records its document outside the bucket, on the Lease that it holds."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pyrage

from archive.bounds import MANIFEST_BYTES
from archive.evidence.chain import Record, read_record
from archive.evidence.verdicts import signer_of
from archive.object_store.store import Missing
from cluster.lease import inquire
from operations.environment.environment import Environment
from operations.runner.context import RunContext
from operations.verify.proof import prove
from tests.environments import changed, environment_with

from ..archive.test_belief import Bucket
from ..stored import Stored, settings_of

SET = "redis-20261124T010000Z-0a1b2c"


class Emptied(Bucket):
    def get(self, key: str, limit: int = MANIFEST_BYTES, version: str = "") -> bytes:
        if key not in self.objects:
            raise Missing(key)
        return super().get(key)


def an_environment(identity: str) -> Environment:
    settings = settings_of(
        environment="test",
        backup=SimpleNamespace(signers=()),
        verify=SimpleNamespace(signers=(signer_of(identity),)),
    )
    return environment_with(settings, kube=Stored(), store=cast(Any, Emptied()), cluster_uid="uid")


def test_each_proof_of_a_set_is_numbered_and_recorded() -> None:
    identity = str(pyrage.x25519.Identity.generate())
    environment = an_environment(identity)
    said = [prove(environment, RunContext("test"), identity, SET) for _ in range(2)]
    assert [one.verdict for one in said] == ["fail", "fail"]
    assert [one.number for one in said] == [1, 2]
    assert said[1].previous != said[0].previous == ""
    assert read_record(
        inquire(environment.kube, environment.settings, "isa-verify-redis")[0]
    ) == Record({SET: 2})


def test_after_a_proof_was_deleted_its_number_is_not_given_again() -> None:
    identity = str(pyrage.x25519.Identity.generate())
    environment = an_environment(identity)
    prove(environment, RunContext("test"), identity, SET)
    emptied = changed(environment, store=cast(Any, Emptied()))
    assert prove(emptied, RunContext("test"), identity, SET).number == 2
