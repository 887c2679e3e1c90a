"""EMQX: users, rules, retained messages."""

from __future__ import annotations

from random import Random

import httpx

from components.access import Access
from components.emqx.client import API_PORT, STATEFULSET, USER, USERS
from sandbox.seed import words

DEVICES, TOPICS = 20, 30
SOURCE = {"type": "built_in_database", "enable": True}
RIGHTS = "/sources/built_in_database/rules/users"
RULE = {"topic": "plant/#", "permission": "allow", "action": "all"}
CONNECTOR = {"type": "mqtt", "name": "plant", "server": "broker.example:1883"}
INGRESS = {
    "type": "mqtt", "name": "ingress", "connector": "plant", "parameters": {"topic": "plant/#", "qos": 1},
}  # fmt: skip
BANS = (
    {"as": "clientid", "who": "loud", "reason": "for ever"},
    {"as": "username", "who": "late", "until": "2099-01-01T00:00:00+00:00"},
)
PASSING = {
    "topic": "plant/passing", "payload": "1", "qos": 1, "retain": True,
    "properties": {"message_expiry_interval": 30 * 86_400},
}  # fmt: skip


def seed(access: Access, size: int, random: Random) -> dict[str, int]:
    """Fill the cluster through one node's API."""
    node = access.endpoints(STATEFULSET, access.settings.components.emqx.members, API_PORT)[0]
    login = {
        "username": USER,
        "password": access.secret("emqx-auth", "EMQX_DASHBOARD__DEFAULT_PASSWORD"),
    }
    with httpx.Client(base_url=f"http://{node.url}/api/v5", timeout=30) as client:
        token = client.post("/login", json=login).raise_for_status().json()["token"]
        client.headers["authorization"] = f"Bearer {token}"
        for number in range(DEVICES * size):
            device = {"user_id": f"device-{number}", "password": random.randbytes(8).hex()}
            _made(client.post(USERS, json=device))
        # Rights are listed where a source of the built-in database is configured.
        _made(client.post("/authorization/sources", json=SOURCE))
        _made(
            client.post(f"/authorization{RIGHTS}", json=[{"username": "device-0", "rules": [RULE]}])
        )
        _made(client.post("/connectors", json=CONNECTOR))
        _made(client.post("/sources", json=INGRESS))
        for ban in BANS:
            _made(client.post("/banned", json=ban))
        client.post("/publish", json=PASSING).raise_for_status()
        for number, good in enumerate(words.GOODS):
            rule = {
                "id": f"rule-{good}",
                "sql": f'SELECT * FROM "plant/+/{good}"',
                "description": f"rule {number}",
            }
            _made(client.post("/rules", json=rule))
        for number in range(TOPICS * size):
            message = {
                "topic": f"plant/{number % 7}/{random.choice(words.GOODS)}/{number}",
                "payload": str(random.randint(0, 1000)),
                "qos": number % 3,
                "retain": True,
            }
            client.post("/publish", json=message).raise_for_status()
    return {"users": DEVICES * size, "rules": len(words.GOODS), "retained messages": TOPICS * size}


def _made(answer: httpx.Response) -> None:
    if answer.status_code not in (400, 409):  # there already, from an earlier run
        answer.raise_for_status()
