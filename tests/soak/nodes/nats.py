"""NATS in containers: beside what every engine shows, a live restore."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from components.nats.client import CLIENT_PORT, KEY, SECRET, STATEFULSET, USER, account, call
from config.sections.backups import NatsAccount
from sandbox.seed.nats import STREAM
from tests.soak.case_table import expect
from tests.soak.nodes.engine import EngineCases


@dataclass
class NatsCases(EngineCases):
    """Cases of NATS, in their order."""

    component: str = "nats"
    workload: str = STATEFULSET
    members: int = 3

    def run(self) -> None:
        """Try all."""
        self.proven()
        self.case("`isa restore` brings a deleted stream back", self.restored)

    def restored(self) -> None:
        before = self.messages()
        self.ask(f"STREAM.DELETE.{STREAM}")
        run = self.isa("restore", self.backup, "--yes")
        expect([one["outcome"] for one in run["restores"]] == ["restored"], f"{run}")
        expect(self.messages() == before, f"{self.messages()} messages of {before}")

    def messages(self) -> int:
        return int(self.ask(f"STREAM.INFO.{STREAM}")["state"]["messages"])

    def ask(self, subject: str) -> dict[str, Any]:
        """Ask JetStream's API as the application's user."""
        with self.access() as access:
            servers = access.endpoints(self.workload, self.members, CLIENT_PORT)
            with account(access, servers, NatsAccount(user=USER, secret=SECRET, key=KEY)) as asked:
                return asked.run(call(asked.client, subject, timeout=access.timeout_seconds))
