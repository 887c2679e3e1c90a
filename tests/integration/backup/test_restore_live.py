"""Restores into the live platform: what was lost comes back, what must not be touched is not, and nothing is ever lost.

All commands run as the service account isa-restore.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import psycopg
import pytest
import redis
from minio import Minio
from minio.credentials.providers import StaticProvider
from minio.error import S3Error
from minio.minioadmin import MinioAdmin
from redis.crc import key_slot

from archive.backup.manifest import Manifest
from components import COMPONENTS
from components.access import Access
from components.emqx import client as emqx
from components.emqx.readiness import session
from components.minio import client as minio
from components.minio.objects.versions import list_versions
from components.postgresql import client as postgresql
from components.qdrant import client as qdrant
from components.redis import client as redis_client
from components.redis.replacement.fence import close
from tests.damage import largest
from tests.losses import LOSSES

from .conftest import ISA, Restorer, until
from .streams import ask

pytestmark = pytest.mark.integration

QUICK = ("postgresql", "redis", "nats", "minio", "qdrant")


@pytest.fixture
def copies(restorer: Restorer) -> Iterator[list[Manifest]]:
    made: list[Manifest] = []
    yield made
    for one in made:
        restorer.forger.remove(one)


# ---------------------------------------------------------------------- what somebody did by mistake
def primary(access: Access) -> Any:
    nodes = access.endpoints(postgresql.STATEFULSET, 3, postgresql.PORT)

    def standby(node: Any) -> bool:
        with postgresql.connect_long(access, node) as connection:
            return connection.execute("SELECT pg_is_in_recovery()").fetchone() == (True,)

    return next(node for node in nodes if not standby(node))


def drop_a_schema(access: Access) -> None:
    with postgresql.connect_long(access, primary(access), "isa") as connection:
        connection.execute("DROP SCHEMA shop CASCADE")


def flush_a_master(access: Access) -> None:
    members = access.endpoints(redis_client.STATEFULSET, 6, redis_client.PORT)
    owners = set(redis_client.read_view(access, members[0]).slots().values())
    first = min(owners).partition(":")[0]
    with redis_client.connect(access, next(m for m in members if m.pod_ip == first)) as client:
        client.execute_command("FLUSHALL SYNC")


def move_slots(access: Access, count: int) -> dict[int, str]:
    """Empty the cluster, and give the first slots to the last one's master; who has which then."""
    members = access.endpoints(redis_client.STATEFULSET, 6, redis_client.PORT)
    slots = redis_client.read_view(access, members[0]).slots()
    with ExitStack() as stack:
        masters = {
            address: stack.enter_context(redis_client.connect(access, member))
            for member in members
            for address in set(slots.values())
            if member.pod_ip == address.partition(":")[0]
        }
        for master in masters.values():
            master.execute_command("FLUSHALL SYNC")
        old, new = slots[0], slots[16383]
        assert old != new
        names = {where: masters[where].execute_command("CLUSTER MYID") for where in (old, new)}
        for slot in (slot for slot in range(count) if slots[slot] == old):
            masters[new].execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", names[old])
            masters[old].execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", names[new])
            for where in (new, old):
                masters[where].execute_command("CLUSTER", "SETSLOT", slot, "NODE", names[new])

    def moved() -> bool:
        views = [redis_client.read_view(access, member).slots() for member in members]
        return all(view.get(0) == new for view in views)

    until(moved, "all members know who has the slots now")
    return redis_client.read_view(access, members[0]).slots()


def delete_a_stream(access: Access) -> None:
    ask(access, ("STREAM.DELETE.ORDERS", None))


def delete_all_objects(access: Access) -> None:
    client = minio.connect(access, access.endpoints(minio.STATEFULSET, 4, minio.PORT)[0])
    for bucket in client.list_buckets()["Buckets"]:
        for version in list_versions(client, bucket["Name"]):
            client.delete_object(Bucket=bucket["Name"], Key=version.key, VersionId=version.identity)


def delete_a_collection(access: Access) -> None:
    peer = access.endpoints(qdrant.STATEFULSET, 3, qdrant.PORT)[0]
    qdrant.call(access, peer, "DELETE", qdrant.path_of("articles"), timeout=60)


MISTAKES: dict[str, Callable[[Access], None]] = {
    "postgresql": drop_a_schema,
    "redis": flush_a_master,
    "nats": delete_a_stream,
    "minio": delete_all_objects,
    "qdrant": delete_a_collection,
}


@pytest.mark.parametrize("component", QUICK)
def test_what_somebody_removed_comes_back_and_what_he_added_is_gone(
    component: str, restorer: Restorer
) -> None:
    good = restorer.take(component)
    with restorer.backups.access() as access:
        LOSSES[component][1](access)  # something that the set does not have
        MISTAKES[component](access)
    (done,) = restorer.isa(good.id)["restores"]
    assert done["outcome"] == "restored", done
    assert done["safety_backup"] > good.id  # what was there in between is not lost either
    assert {"fence", "safety", "replace", "compare", "gate"} <= set(done["stages"])
    restorer.ready(component)


def of_key(access: Access, name: str, command: str, *words: str | int) -> Any:
    """What the master of a key answers to a command about it."""
    members = access.endpoints(redis_client.STATEFULSET, 6, redis_client.PORT)
    owner = redis_client.read_view(access, members[0]).slots()[key_slot(name.encode())]
    member = next(m for m in members if m.pod_ip == owner.partition(":")[0])
    with redis_client.connect(access, member) as client:
        return client.execute_command(command, name, *words)


def longest_argument(access: Access, new: str = "") -> set[str]:
    """`proto-max-bulk-len` of all members, set first where a value is given."""
    found = set()
    for member in access.endpoints(redis_client.STATEFULSET, 6, redis_client.PORT):
        with redis_client.connect(access, member) as client:
            if new:
                client.config_set("proto-max-bulk-len", new)
            found |= set(client.config_get("proto-max-bulk-len").values())
    return found


def test_redis_comes_back_into_a_cluster_whose_slots_lie_otherwise(restorer: Restorer) -> None:
    with restorer.backups.access() as access:
        of_key(access, "large", "SET", os.urandom(2 << 20).hex())
        of_key(access, "code", "SET", "4711", "EX", 25)
        of_key(access, "fields", "HSET", "stays", "1", "soon", "2")
        of_key(access, "fields", "HEXPIRE", 25, "FIELDS", 1, "soon")
        good = restorer.take("redis")
        # a key or a field whose time has come by then is no loss
        until(lambda: not of_key(access, "code", "EXISTS"), "the key has expired")
        until(lambda: of_key(access, "fields", "HLEN") == 1, "the field has expired")
        owners = move_slots(access, 300)
        assert longest_argument(access, str(1 << 20)) == {
            str(1 << 20)
        }  # less than one of the values
    (done,) = restorer.isa(good.id)["restores"]
    assert done["outcome"] == "restored", done
    with restorer.backups.access() as access:
        member = access.endpoints(redis_client.STATEFULSET, 6, redis_client.PORT)[0]
        assert redis_client.read_view(access, member).slots() == owners  # a restore moves none
        assert of_key(access, "large", "STRLEN") == 4 << 20
        assert longest_argument(access) == {str(1 << 20)}
        longest_argument(access, str(512 << 20))
    restorer.ready("redis")


@contextmanager
def rotated_administrator(restorer: Restorer) -> Iterator[None]:
    """Give EMQX's administrator, and the platform's Secret, another password for a while."""
    kube = restorer.backups.environment.kube
    secret = kube.get(
        "v1", "Secret", emqx.SECRET, restorer.backups.environment.settings.kubernetes.namespace
    )
    assert secret is not None

    def rotate(change: dict[str, Any], old: str) -> None:
        with restorer.backups.access() as access:
            api = emqx.sign_on(access, access.endpoints(emqx.STATEFULSET, 3, emqx.API_PORT)[0])
        kube.patch(secret, change)
        with restorer.backups.access() as access:
            body = {"old_pwd": old, "new_pwd": access.secret(emqx.SECRET, emqx.PASSWORD)}
            api = emqx.Api(access.http, api.base, api.headers)
            api("POST", f"/users/{emqx.USER}/change_pwd", body).raise_for_status()

    rotated = "rotated-0123456789"
    with restorer.backups.access() as access:
        before = access.secret(emqx.SECRET, emqx.PASSWORD)
    rotate({"stringData": {emqx.PASSWORD: rotated}}, before)
    try:
        yield
    finally:
        rotate({"data": secret["data"]}, rotated)


def test_emqx_gets_back_what_it_lost_and_nobody_who_is_there_an_old_password(
    restorer: Restorer,
) -> None:
    operator = {"username": "operator", "password": "operator-0123456789", "description": ""}
    device = {"password": "rotated-0123456789"}
    with restorer.backups.access() as access:
        node = access.endpoints(emqx.STATEFULSET, 3, emqx.API_PORT)[0]
        api = emqx.sign_on(access, node)
        lose = LOSSES["emqx"][1](access)
        api("POST", "/users", operator).raise_for_status()
        good = restorer.take("emqx")
        lose()
        api("DELETE", "/users/operator").raise_for_status()
        api("PUT", f"{emqx.USERS}/device-0", device).raise_for_status()
    with rotated_administrator(restorer):
        (done,) = restorer.isa(good.id)["restores"]
        assert done["outcome"] == "restored", done
        assert "isa-lost, operator" in "; ".join(done["kept"])
        with restorer.backups.access() as access:
            LOSSES["emqx"][1](access)()  # it is there: making it is not needed; is removed again
            api = emqx.sign_on(access, node)
            login = {key: operator[key] for key in ("username", "password")}
            assert access.http.post(f"{api.base}/login", json=login).status_code == 200
            api("DELETE", "/users/operator").raise_for_status()
            listener = access.endpoints(emqx.STATEFULSET, 3, emqx.MQTT_PORT)[0]
            with session(access, listener, ("device-0", device["password"])):
                pass
        restorer.ready("emqx")


def test_minio_gives_nobody_who_is_there_an_old_secret_key(restorer: Restorer) -> None:
    with restorer.backups.access() as access:
        server = access.endpoints(minio.STATEFULSET, 4, minio.PORT)[0]
        root = StaticProvider(*minio._keys(access))
        admin = MinioAdmin(endpoint=server.url, credentials=root, secure=False)
        admin.user_add("visitor", "visitor-then")
        good = restorer.take("minio")
        admin.user_remove("visitor")
        admin.user_add("analyst", "analyst-rotated")
        (done,) = restorer.isa(good.id)["restores"]
        assert done["outcome"] == "restored", done
        assert done["kept"] == ["restored with the secret keys of the backup: visitor"]
        for user, key in (("analyst", "analyst-rotated"), ("visitor", "visitor-then")):
            with pytest.raises(S3Error) as refused:  # they may see no bucket
                Minio(server.url, user, key, secure=False).list_buckets()
            assert refused.value.code == "AccessDenied"  # of another key: SignatureDoesNotMatch
        admin.user_remove("visitor")


def test_the_old_database_stays_beside_the_new_one_until_somebody_drops_it(
    restorer: Restorer,
) -> None:
    good = restorer.take("postgresql")
    (done,) = restorer.isa(good.id)["restores"]
    with restorer.backups.access() as access:
        node = primary(access)
        with postgresql.connect_long(access, node) as connection:
            rows = connection.execute(
                "SELECT datname FROM pg_database WHERE datname LIKE 'isa\\_\\_before\\_%'"
            ).fetchall()
        newest = max(name for (name,) in rows)
        assert newest in done["kept"][0]
        with (
            postgresql.connect_long(access, node, newest, "search_path=public") as connection,
            pytest.raises(psycopg.errors.ReadOnlySqlTransaction),
        ):
            connection.execute("CREATE TABLE written (n int)")
        with postgresql.connect_long(access, node) as connection:
            for (name,) in rows:
                connection.execute(f'DROP DATABASE "{name}" (FORCE)'.encode())


def test_a_dump_that_does_not_restore_leaves_the_old_database(
    restorer: Restorer, copies: list[Manifest]
) -> None:
    good = restorer.take("postgresql")
    copies.append(restorer.forger.garbled(good, "databases/isa.dump"))
    (done,) = restorer.isa(copies[0].id, code=1)["restores"]
    assert done["outcome"] == "failed"
    assert done["safety_backup"] in done["reason"]  # the way back
    with restorer.backups.access() as access:
        with postgresql.connect(access, primary(access)) as connection:
            row = connection.execute("SELECT count(*) FROM shop.turnover").fetchone()
        assert row is not None
        assert row[0] > 0
    restorer.ready("postgresql")


def test_a_restore_that_is_killed_is_done_again_and_nothing_is_lost(restorer: Restorer) -> None:
    good = restorer.take("postgresql")
    running = subprocess.Popen(
        [ISA, "restore", good.id, "--local", "--yes"],
        env=restorer.environ,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    with restorer.backups.access() as access:
        node = primary(access)
        query = "SELECT 1 FROM pg_db_role_setting WHERE 'isa.unfinished=on' = ANY (setconfig)"
        with postgresql.connect_long(access, node) as connection:
            while connection.execute(query).fetchone() is None:  # the old one is aside
                assert time.monotonic() < deadline
                time.sleep(0.01)
    running.kill()
    running.wait()
    (told,) = restorer.backups.isa("backup", "postgresql", "--local", code=1)["backups"]
    assert told["outcome"] == "partial"  # the database has not its name back yet
    assert f"a restore of {good.id} was interrupted" in told["reason"]
    (done,) = restorer.isa(good.id)["restores"]
    assert done["outcome"] == "restored", done
    assert restorer.take("postgresql").outcome == "complete"
    restorer.ready("postgresql")


USERS = {
    "shop": ("on", ">shop-password", "~*", "&ch:*", "+@all", "-@dangerous", "(~own:* +@write)"),
    "reader": ("on", ">reader-password", "~*", "+@all", "-@write"),
}


def test_while_it_is_fenced_redis_can_be_read_and_written_by_nobody(restorer: Restorer) -> None:
    def rights(access: Access) -> dict[str, list[str]]:
        found = {}
        for member in access.endpoints(redis_client.STATEFULSET, 6, redis_client.PORT):
            with redis_client.connect(access, member) as client:
                found[member.member] = sorted(client.execute_command("ACL LIST"))
        return found

    with restorer.backups.access() as access, ExitStack() as stack:
        members = access.endpoints(redis_client.STATEFULSET, 6, redis_client.PORT)
        for member in members:
            client = stack.enter_context(redis_client.connect(access, member))
            stack.callback(client.execute_command, "ACL DELUSER", *USERS)
            for name, rules in USERS.items():
                client.execute_command("ACL SETUSER", name, *rules)
        before = rights(access)
        shop = redis.Redis(
            members[0].host, members[0].port, username="shop", password="shop-password"
        )
        stack.callback(shop.close)
        assert shop.ping()
        close(client)  # and is killed
        with (
            COMPONENTS["redis"].live.fence(access, ["all keys"]),
            redis_client.connect(access, members[0]) as default,
        ):
            for writer in (default, shop):
                for key in ("somebody", "own:thing"):
                    with pytest.raises(redis.exceptions.NoPermissionError):
                        writer.execute_command("SET", key, "wrote")
                assert writer.ping()
        assert rights(access) == before
    restorer.ready("redis")


def test_a_set_of_another_cluster_is_refused_unless_that_one_is_gone(
    restorer: Restorer, copies: list[Manifest]
) -> None:
    good = restorer.backups.manifest("redis")
    copies.append(restorer.forger.copy(good, cluster="11111111-2222-3333-4444-555555555555"))
    refused = restorer.isa(copies[0].id, code=1)
    assert "another cluster" in refused["error"]
    assert restorer.run(copies[0].id, "--other-cluster", "--plan").returncode == 0


def test_a_set_that_failed_its_proof_is_refused(restorer: Restorer, copies: list[Manifest]) -> None:
    good = restorer.backups.manifest("nats")
    copies.append(restorer.forger.flipped(good, largest(good)))
    subprocess.run(
        [ISA, "verify", copies[0].id, "--local"], env=restorer.environ, check=False, timeout=200
    )
    assert "proof" in restorer.isa(copies[0].id, code=1)["error"]


def test_a_stream_is_not_deleted_for_a_set_that_is_damaged(
    restorer: Restorer, copies: list[Manifest]
) -> None:
    good = restorer.take("nats")
    copies.append(restorer.forger.flipped(good, largest(good)))
    (done,) = restorer.isa(copies[0].id, code=1)["restores"]
    assert "is not what was stored" in done["reason"] or "cannot be decrypted" in done["reason"]
    assert not done["safety_backup"]  # it never got as far
    restorer.ready("nats")
    after = restorer.take("nats")
    assert after.fingerprint == good.fingerprint


def test_nothing_happens_without_the_components_name_typed_by_hand(restorer: Restorer) -> None:
    good = restorer.backups.manifest("redis")
    before = restorer.backups.manifest("redis").id
    done = restorer.run(good.id, "--local", stdin="yes\n")
    assert done.returncode != 0
    assert "all keys" in done.stderr  # the plan was shown
    assert "the last backup took" in done.stderr
    assert restorer.backups.manifest("redis").id == before
