"""Pgpool, which clients go through: what each pod of it takes the nodes for, and whether it takes writes."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Any

from components.access import Access, Endpoint
from components.postgresql.client import PORT, SCHEMA, answered_within, connect, query
from components.questions import Round, ask_members, words

POOL_NODES = "SHOW pool_nodes"
# A node is "waiting" until the first client is connected to it, and again after pcp_attach_node:
# https://www.pgpool.net/docs/46/en/html/sql-show-pool-nodes.html
SERVED = ("up", "waiting")


def ask_pools(access: Access, questions: Round, primary: str) -> None:
    """Ask each Pgpool for its view, and write through it.

    A Pgpool that sticks to an old primary fails every write (bitnami/charts#20998).
    """
    pools = _pools(access)
    answers = ask_members(pools, lambda pool: query(access, pool, POOL_NODES))
    questions.checks.append(answers.check("Pgpool answers"))
    wrong = {
        pool: "; ".join(_disagreements(nodes, primary)) for pool, nodes in answers.good.items()
    }
    wrong = {pool: text for pool, text in wrong.items() if text}
    questions.note("Pgpool knows the nodes", not wrong, words(wrong), critical=False)
    if any(check.name == "write" and (check.unknown or not check.ok) for check in questions.checks):
        return  # the primary itself does not take it
    written = ask_members(
        [pool for pool in pools if pool.member in answers.good],
        lambda pool: _write_through(access, pool),
    )
    questions.checks.append(
        written.check("write through Pgpool", critical=bool(pools) and not written.good)
    )


def _pools(access: Access) -> list[Endpoint]:
    namespace = access.settings.kubernetes.namespace
    selector = "app.kubernetes.io/component=pgpool"
    pods = [p["metadata"]["name"] for p in access.kube.list("v1", "Pod", namespace, selector)]
    return [access.endpoint(pod, PORT) for pod in pods]


def _disagreements(nodes: list[dict[str, Any]], primary: str) -> Iterator[str]:
    """What a Pgpool has wrong about the nodes, each with its cure."""
    for node in nodes:
        name = str(node["hostname"]).partition(".")[0]
        if node["status"] not in SERVED:
            cure = f"once it answers, attach it there: pcp_attach_node -n {node['node_id']}"
            yield f"{name} is {node['status']}: {cure}"
        elif (node["role"] == "primary") != (name == primary):
            yield f"takes {name} for {node['role']}: restart that Pgpool"


def _write_through(access: Access, pool: Endpoint) -> None:
    """Write a row as a client does, and remove it."""
    token = secrets.token_hex(8)
    with connect(access, pool) as connection, answered_within(connection):
        connection.execute(f"INSERT INTO {SCHEMA}.probe (token) VALUES (%s)", [token])
        connection.execute(f"DELETE FROM {SCHEMA}.probe WHERE token = %s", [token])


def say_where_pools_write(access: Access, questions: Round) -> None:
    """With several primaries: which of them the clients of each Pgpool write to."""

    def target(pool: Endpoint) -> str:
        nodes = query(access, pool, POOL_NODES)
        found = [str(n["hostname"]).partition(".")[0] for n in nodes if n["role"] == "primary"]
        return ", ".join(found) or "no node"

    answers = ask_members(_pools(access), target)
    questions.note(
        "Pgpool writes to",
        not answers.bad and len({*answers.good.values()}) < 2,
        words(answers.good | answers.bad),
        critical=False,
    )
