"""EMQX: users, rules, retained messages."""

from __future__ import annotations

from random import Random

import httpx

from components.access import Access
from components.emqx.client import API_PORT, STATEFULSET, USER, USERS
from deployments.sandbox.seed import words

DEVICES, TOPICS = 20, 30


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
