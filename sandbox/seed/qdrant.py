"""Qdrant: a collection with named vectors, payloads and indexes, a plain one, and an alias."""

from __future__ import annotations

from random import Random
from typing import Any
from uuid import UUID

import httpx

from components.access import Access
from components.qdrant.client import PORT, STATEFULSET
from sandbox.seed import words

POINTS, BATCH = 500, 250


def seed(access: Access, size: int, random: Random) -> dict[str, int]:
    """Fill two collections."""
    peer = access.endpoints(STATEFULSET, access.settings.components.qdrant.members, PORT)[0]
    headers = {"api-key": access.secret("qdrant-auth", "api-key")}
    named = {"text": {"size": 32, "distance": "Cosine"}, "image": {"size": 8, "distance": "Dot"}}
    count = POINTS * size
    with httpx.Client(base_url=f"http://{peer.url}", headers=headers, timeout=60) as client:
        _collection(client, "articles", named)
        _collection(client, "pictures", {"size": 16, "distance": "Euclid"})
        for field, kind in (("kind", "keyword"), ("price", "float")):
            body = {"field_name": field, "field_schema": kind}
            client.put("/collections/articles/index?wait=true", json=body).raise_for_status()
        _fill(client, "articles", [_article(random, number) for number in range(count)])
        _fill(client, "pictures", [_picture(random) for _ in range(count // 2)])
        action = {"create_alias": {"collection_name": "articles", "alias_name": "live"}}
        client.post("/collections/aliases", json={"actions": [action]}).raise_for_status()
    return {"points": count + count // 2, "collections": 2, "aliases": 1}


def _collection(client: httpx.Client, name: str, vectors: dict[str, Any]) -> None:
    client.delete(f"/collections/{name}").raise_for_status()
    spec = {"vectors": vectors, "shard_number": 3, "replication_factor": 2}
    client.put(f"/collections/{name}", json=spec).raise_for_status()


def _fill(client: httpx.Client, name: str, points: list[dict[str, Any]]) -> None:
    for start in range(0, len(points), BATCH):
        body = {"points": points[start : start + BATCH]}
        client.put(f"/collections/{name}/points?wait=true", json=body).raise_for_status()


def _article(random: Random, number: int) -> dict[str, Any]:
    payload = {
        "title": words.text(random, 4),
        "kind": random.choice(words.GOODS),
        "price": round(random.uniform(1, 100), 2),
        "tags": [random.choice(words.CITIES) for _ in range(2)],
    }
    vector = {"text": _vector(random, 32), "image": _vector(random, 8)}
    return {"id": number, "vector": vector, "payload": payload}


def _picture(random: Random) -> dict[str, Any]:
    identity = str(UUID(int=random.getrandbits(128), version=4))
    return {
        "id": identity,
        "vector": _vector(random, 16),
        "payload": {"city": random.choice(words.CITIES)},
    }


def _vector(random: Random, size: int) -> list[float]:
    return [round(random.uniform(-1, 1), 6) for _ in range(size)]
