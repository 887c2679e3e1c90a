"""What `isa setup` refuses before it changes anything on the server."""

from __future__ import annotations

from uuid import uuid4

import pytest

from config.loading import load
from errors import PermanentError
from tasks.server.setup import set_up

from .prefect_api import PrefectApi, serve

FACTS = {
    "ISA_STORAGE__OBJECT__ENDPOINT": "http://127.0.0.1:9000",
    "ISA_STORAGE__OBJECT__BUCKET": "isa-backups",
    "ISA_POOL__TYPE": "kubernetes",
}


def test_a_pool_of_another_type_is_named_with_the_command_that_removes_it() -> None:
    api = PrefectApi()
    pool = {"id": str(uuid4()), "name": "isa-platform", "type": "process"}
    api.answers["GET /work_pools/isa-platform"] = {**pool, "default_queue_id": str(uuid4())}
    with serve(api), pytest.raises(PermanentError) as caught:
        set_up(load("sandbox", environ=FACTS))
    assert "has the type process, the settings say pool.type: kubernetes" in str(caught.value)
    assert "prefect work-pool delete isa-platform" in str(caught.value)
    assert {one.partition(" ")[0] for one in api.requests} == {"GET"}
