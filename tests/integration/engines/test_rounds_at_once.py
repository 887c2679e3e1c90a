"""A deploy's gate and two people who look at the status at the same time all see a healthy engine."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from components.access import Access
from components.minio import client as minio
from components.minio.readiness import PREFIX
from components.questions import PROBE

from ..backup.streams import ask
from .live import Live, troubles

AT_ONCE, ROUNDS = 3, 8


@pytest.mark.parametrize("component", ["nats", "minio"])
def test_rounds_at_the_same_time_do_not_disturb_each_other(live: Live, component: str) -> None:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = list(pool.map(lambda _: live.ask(component), range(AT_ONCE * ROUNDS)))
    assert [troubles(one) for one in found] == [{}] * AT_ONCE * ROUNDS


def test_a_client_may_have_a_stream_that_takes_the_probes_subjects_too(live: Live) -> None:
    everything = {"name": "EVERYTHING", "subjects": [f"{PROBE}.>"], "num_replicas": 3}
    assert live.ask("nats").state == "ready"
    with Access(live.environment.settings, live.environment.kube) as access:
        # A round that another test cut off leaves its stream for five minutes.
        for name in ask(access, ("STREAM.NAMES", {"subject": f"{PROBE}.>"}))[0]["streams"] or ():
            ask(access, (f"STREAM.DELETE.{name}", None))
        ask(access, ("STREAM.CREATE.EVERYTHING", everything))
        try:
            found = live.ask("nats")
        finally:
            ask(access, ("STREAM.DELETE.EVERYTHING", None))
    assert found.state == "ready"
    (unknown,) = [check for check in found.checks if check.unknown]
    assert "another stream takes every subject" in unknown.hint


def test_what_a_round_put_into_minio_is_gone_and_what_another_just_put_stays(live: Live) -> None:
    live.ask("minio")
    with Access(live.environment.settings, live.environment.kube) as access:
        client = minio.connect(access, access.endpoints("minio", 4, minio.PORT)[0])
        key = f"{PREFIX}of-another-round-{time.time_ns()}"
        client.put_object(Bucket=PROBE, Key=key, Body=b"x")
        try:
            live.ask("minio")
            page = client.list_objects_v2(Bucket=PROBE, Prefix=PREFIX)
            assert [entry["Key"] for entry in page["Contents"]] == [key]
        finally:
            client.delete_object(Bucket=PROBE, Key=key)
