"""Routes with the brokers' monitoring data: clients, subscriptions, counts of messages."""

from __future__ import annotations

from typing import Any

import httpx

from sandbox.doubles.emqx.api.wire import Json, Refused, Wire
from sandbox.doubles.emqx.broker import INTERNAL_USER

# Characters of the server's subject → characters of a topic.
TO_TOPIC = str.maketrans({".": "/", "*": "+", ">": "#"})


class Seen(Wire):
    """Answers from the servers' monitoring data."""

    def clients(self) -> Json:
        return self.page(self._clients())

    def client(self, identity: str) -> Json:
        for client in self._clients():
            if client["clientid"] == identity:
                return client
        raise Refused(404, "CLIENTID_NOT_FOUND", "Client ID not found")

    def client_subscriptions(self, identity: str) -> list[Json]:
        self.client(identity)
        return [row for row in self._subscriptions() if row["clientid"] == identity]

    def subscriptions(self) -> Json:
        return self.page(self._subscriptions())

    def topics(self) -> Json:
        found = {(row["topic"], row["node"]) for row in self._subscriptions()}
        return self.page([{"topic": topic, "node": node} for topic, node in sorted(found)])

    def metrics(self) -> list[Json] | Json:
        rows = []
        for pod in self.node.running():
            said = self._monitor(pod, "varz")
            rows.append(
                {
                    "node": self.node.node_name(pod),
                    "messages.received": said.get("in_msgs", 0),
                    "messages.sent": said.get("out_msgs", 0),
                    "bytes.received": said.get("in_bytes", 0),
                    "bytes.sent": said.get("out_bytes", 0),
                }
            )
        return self._aggregated(rows)

    def stats(self) -> list[Json] | Json:
        clients, subscriptions = self._clients(), self._subscriptions()
        shared = {
            "retained.count": len(self.node.broker.retained()),
            "rules.count": len(self.tables["rules"]),
            "topics.count": len({row["topic"] for row in subscriptions}),
        }
        rows = []
        for pod in self.node.running():
            name = self.node.node_name(pod)
            here = sum(client["node"] == name for client in clients)
            counts = {
                "connections.count": here,
                "live_connections.count": here,
                "sessions.count": here,
                "subscriptions.count": sum(row["node"] == name for row in subscriptions),
            }
            rows.append({"node": name, **counts, **shared})
        return self._aggregated(rows, frozenset(shared))

    def _aggregated(
        self, rows: list[Json], shared: frozenset[str] = frozenset()
    ) -> list[Json] | Json:
        """Counts by node, or as a sum if the query asks for it. Data shared by all nodes counts once."""
        if self.query.get("aggregate") != "true":
            return rows
        fields = [field for field in rows[0] if field != "node"]
        return {f: rows[0][f] if f in shared else sum(row[f] for row in rows) for f in fields}

    def _clients(self) -> list[Json]:
        return [
            {
                "clientid": row["mqtt_client"],
                "username": row.get("authorized_user"),
                "node": self.node.node_name(pod),
                "connected": True,
                "connected_at": row["start"],
                "ip_address": row["ip"],
                "port": row["port"],
                "proto_name": "MQTT",
                "proto_ver": 4,
                "recv_msg": row["in_msgs"],
                "send_msg": row["out_msgs"],
                "subscriptions_cnt": len(_topics(row)),
            }
            for pod, row in self._connections()
        ]

    def _subscriptions(self) -> list[Json]:
        return [
            {"topic": topic, "clientid": row["mqtt_client"], "node": self.node.node_name(pod)}
            for pod, row in self._connections()
            for topic in _topics(row)
        ]

    def _connections(self) -> list[tuple[str, Json]]:
        return [
            (pod, row)
            for pod in self.node.running()
            for row in self._monitor(pod, "connz?auth=1&subs=detail").get("connections", [])
            if row.get("mqtt_client") and row.get("authorized_user") != INTERNAL_USER
        ]

    def _monitor(self, pod: str, path: str) -> dict[str, Any]:
        try:
            return self.node.broker.monitor(pod, path)
        except httpx.HTTPError:
            return {}  # it died after it was last seen


def _topics(connection: Json) -> list[str]:
    """The filters that a client subscribed to, without the server's internal ones."""
    found = connection.get("subscriptions_list_detail") or []
    return sorted(
        {
            sub["subject"].translate(TO_TOPIC)
            for sub in found
            # internal: the level above `a/#`, and deliveries of QoS 1 and 2
            if not sub["sid"].endswith(" fwc") and not sub["subject"].startswith("$MQTT")
        }
    )
