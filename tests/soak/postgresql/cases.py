"""The faults: a killed server, a detached node, a node that is cut off (for a moment, until a failover, for long)."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from tests.soak.case_table import expect
from tests.soak.postgresql.installation import PSQL, SERVER, Installation
from tests.soak.postgresql.writer import Writer

FIRST_WRITE_SECONDS = 15.0
# repmgr promotes nobody within 11 s: tests/unit/production/test_failover.py
SHORT_SECONDS = 6.0
# Long enough that the old primary has stopped itself and has been started again by its kubelet.
LONG_SECONDS = 60.0
SERVICE = "postgresql-ha-pgpool"
SYNCHRONOUS = (
    'ALTER SYSTEM SET synchronous_standby_names = \'ANY 1 ("postgresql-ha-postgresql-0", '
    '"postgresql-ha-postgresql-1", "postgresql-ha-postgresql-2")\''
)


@dataclass
class Cut:
    """A node that was cut off.

    Attributes:
        old: the primary on it.
        outside: a client on another node.
        inside: a client beside the primary, through a Pgpool beside it.
        began: when.
        first_write: seconds until the client outside wrote again.
    """

    old: str
    outside: Writer
    inside: Writer
    began: float
    first_write: float = 0.0


@dataclass
class Faults(Installation):
    """The cases, in this order.

    Attributes:
        client: of the first cases.
        first_writes: case → seconds until a client wrote again.
    """

    client: Writer = field(init=False)
    first_writes: dict[str, float] = field(default_factory=dict)

    def client_writes(self) -> None:
        node = next(one for one in self.node_names() if one != self.node_of(self.primary()))
        self.client = Writer("client", node, SERVICE)
        self.start(self.client)

    def killed_primary_is_replaced(self) -> None:
        old = self.primary()
        began = time.time()
        self.in_pod(old, SERVER, 'kill -9 "$(head -n 1 "$PGDATA/postmaster.pid")"')
        seconds = self.first_write_after(self.client, began + 1) - began
        self.note(f"primary's server killed: first write through Pgpool after {seconds:.1f} s")
        self.until(lambda: self.primary() not in ("", old), "another node is primary")
        found = self.check("Pgpool knows the nodes")
        expect(not found.ok and "pcp_attach_node -n" in found.hint, f"Pgpool's view: {found.hint}")
        self.first_writes["killed"] = seconds

    def killed_primary_comes_back_as_a_standby(self) -> None:
        began = time.time()
        self.gate_is_green()
        self.note(
            f"the old primary is back and the gate green after {time.time() - began:.0f} s more"
        )
        self.count_lost("primary's server killed", self.client)

    def detached_node_is_named_with_its_cure(self) -> None:
        pool = str(self.pods("pgpool")[0]["metadata"]["name"])
        standby = next(one for one in self.gate().roles if one.role == "standby").member[-1]
        pcp = (
            "export PCPPASSFILE=/tmp/pass; umask 077; "
            'echo "localhost:9898:$PGPOOL_ADMIN_USERNAME:$(cat "$PGPOOL_ADMIN_PASSWORD_FILE")" > $PCPPASSFILE; '
            'pcp_{}_node -h localhost -p 9898 -U "$PGPOOL_ADMIN_USERNAME" -w -n {}'
        )
        self.in_pod(pool, "pgpool", pcp.format("detach", standby))
        found = self.check("Pgpool knows the nodes")
        cure = f"pcp_attach_node -n {standby}"
        expect(cure in found.hint, f"the gate says {found.hint or 'nothing'}")
        self.in_pod(pool, "pgpool", pcp.format("attach", standby))
        self.gate_is_green()

    # ------------------------------------------------------------------ a node that is cut off
    def short_interruption_promotes_nobody(self) -> None:
        cut = self.prepare_cut("moment")
        self.nodes.cut(self.node_of(cut.old))
        time.sleep(SHORT_SECONDS)
        self.nodes.reconnect(self.node_of(cut.old))
        back = time.time()
        seconds = self.first_write_after(cut.outside, back) - back
        self.note(
            f"primary's node cut off for {SHORT_SECONDS:.0f} s: writes go on {seconds:.1f} s later"
        )
        self.gate_is_green()
        expect(self.primary() == cut.old, f"{self.primary()} was promoted")
        lost = self.count_lost("a short interruption", cut.outside, cut.inside)
        expect(lost == 0, f"{lost} lost")

    def cut_off_primary_is_replaced(self) -> None:
        cut = self.cut_off("asynchronous")
        self.gate_is_green()
        self.note(f"the gate is green {time.time() - cut.began:.0f} s after the cut")
        self.count_lost("asynchronous replication", cut.outside, cut.inside)

    def primary_cut_off_for_long_comes_back_as_a_second_one(self) -> None:
        cut = self.cut_off("long", LONG_SECONDS)
        self.until(lambda: "split brain" in self.check("one primary").hint, "a split brain is told")
        self.until(
            lambda: self.pgpools_left(cut.old), f"both Pgpools leave {cut.old}", self.troubles
        )
        self.note(f"both Pgpools have left it {time.time() - cut.began:.0f} s after the cut")
        self.kube.delete("v1", "Pod", cut.old, self.namespace)
        self.gate_is_green()
        self.note(
            f"its pod deleted: the gate is green {time.time() - cut.began:.0f} s after the cut"
        )
        self.count_lost("cut off for a minute", cut.outside, cut.inside)

    def one_synchronous_standby_loses_nothing(self) -> None:
        before = self.commit_milliseconds()
        for pod in self.pods("postgresql"):
            script = f"{PSQL} << 'END'\n{SYNCHRONOUS};\nSELECT pg_reload_conf();\nEND"
            self.in_pod(str(pod["metadata"]["name"]), SERVER, script)
        after = self.commit_milliseconds()
        self.note(
            f"a commit takes {before:.1f} ms, and {after:.1f} ms with one synchronous standby"
        )
        cut = self.cut_off("synchronous")
        self.gate_is_green()
        lost = self.count_lost("one synchronous standby", cut.outside, cut.inside)
        expect(lost == 0, f"{lost} acknowledged writes lost")

    def clients_wrote_again_in_time(self) -> None:
        late = {name: s for name, s in self.first_writes.items() if s > FIRST_WRITE_SECONDS}
        expect(not late, ", ".join(f"{name}: {s:.1f} s" for name, s in late.items()))

    def commit_milliseconds(self) -> float:
        """Of one row in one transaction, in one session on the primary; mean of many."""
        count = 300
        script = (
            f"{PSQL} -d isa -c 'CREATE TABLE IF NOT EXISTS commits (number int)'; began=$(date +%s%N); "
            f'for n in $(seq {count}); do echo "INSERT INTO commits VALUES ($n);"; done | {PSQL} -q -d isa; '
            "echo $(($(date +%s%N) - began))"
        )
        nanoseconds = self.in_pod(self.primary(), SERVER, script).split()[-1]
        return int(nanoseconds) / count / 1e6

    def prepare_cut(self, name: str) -> Cut:
        """Start a client on each side of a cut to come."""
        old = self.primary()
        node = self.node_of(old)
        self.keep_dns_off(node)
        beside = self.pgpool_beside(node)
        other = next(one for one in self.node_names() if one != node)
        outside = Writer(f"{name}-outside", other, SERVICE)
        inside = Writer(f"{name}-inside", node, beside)
        self.gate_is_green()
        self.start(outside)
        self.start(inside)
        return Cut(old, outside, inside, time.time())

    def cut_off(self, name: str, seconds: float = 0.0) -> Cut:
        """Cut the primary's node off until another is primary.

        Args:
            name: of the case.
            seconds: to leave it cut off at least.
        """
        cut = self.prepare_cut(name)
        node = self.node_of(cut.old)
        self.nodes.cut(node)
        cut.began = time.time()
        try:
            cut.first_write = self.first_write_after(cut.outside, cut.began + 1) - cut.began
            self.until(lambda: self.primary() not in ("", cut.old), "another node is primary")
            time.sleep(max(0.0, cut.began + seconds - time.time()))
        finally:
            self.nodes.reconnect(node)
        self.first_writes[name] = cut.first_write
        self.note(
            f"primary's node cut off ({name}) for {time.time() - cut.began:.0f} s: "
            f"first write through Pgpool after {cut.first_write:.1f} s"
        )
        self.note_steps(cut)
        return cut

    def note_steps(self, cut: Cut) -> None:
        """When each part of the failover was done, by the servers' own logs."""
        new = self.primary_beside(cut.old)
        promoted = self.logged(new, SERVER, "ready to accept connections", cut.began)
        followed = [
            self.logged(str(pod["metadata"]["name"]), "pgpool", "set new primary node", cut.began)
            for pod in self.pods("pgpool")
            if pod["spec"]["nodeName"] != cut.inside.node
        ]
        self.note(
            f"of these: {new} was promoted after {promoted:.1f} s, the other Pgpool followed after {followed[0]:.1f} s"
        )

    def primary_beside(self, old: str) -> str:
        """The primary that is not the old one."""
        roles = self.gate().roles
        names = [one.member for one in roles if one.role == "primary" and one.member != old]
        expect(names, f"no primary but {old}: {roles}")
        return names[0]

    def pgpools_left(self, old: str) -> bool:
        """Whether each Pgpool writes to another node; asked while there are two primaries."""
        found = self.check("Pgpool writes to")
        return found.ok and old not in found.hint
