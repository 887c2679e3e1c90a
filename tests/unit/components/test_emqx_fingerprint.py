"""What of EMQX is compared: what goes at its own time by its number, what EMQX makes of itself not at all."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from archive.backup.manifest import Measure
from components.emqx.exports.export import Message, Retained, read_export
from components.emqx.fingerprint import (
    ACL,
    GARBLED,
    MESSAGES,
    NEWEST,
    counts,
    measure,
    measure_lists,
    measure_messages,
)
from errors import TemporaryError
from operations.verify.comparison import compare

from .emqx_archives import archive
from .emqx_broker import Broker

EXPIRING = f"{MESSAGES} that expire"


def manifest(fingerprint: list[Measure], version: int = NEWEST) -> Any:
    topology = {"fingerprint": version} if version > 1 else {}
    return SimpleNamespace(topology=topology, fingerprint=fingerprint)


def messages(lasting: dict[str, bytes], *expiring: str) -> Retained:
    return Retained({t: Message.of(t, 1, p) for t, p in lasting.items()}, frozenset(expiring))


def differences(source: list[Measure], broker: Broker, held: Retained | None) -> list[str]:
    """What is told where a broker is compared with a set."""
    found = {"": measure(broker.api, manifest(source), held)}
    return [f"{one.item}: {one.what}" for one in compare(source, found)]


def count(broker: Broker, item: str) -> int:
    return next(one.count for one in measure_lists(broker.api).measures if one.item == item)


@pytest.mark.parametrize("restored", [{}, {"passing": b"1"}])
def test_messages_that_expired_since_are_no_difference(restored: dict[str, bytes]) -> None:
    held, broker = messages({"plant/1": b"on"}, "passing"), Broker()
    broker.retained = {"plant/1": b"on", **restored}
    assert differences(measure_messages(held), broker, held) == []


def test_what_emqx_retains_of_itself_is_not_compared() -> None:
    held, broker = messages({"plant/1": b"on"}), Broker()
    broker.retained = {"plant/1": b"on", "$SYS/brokers": b"a", "$SYS/brokers/a/version": b"5"}
    assert differences(measure_messages(held), broker, held) == []


@pytest.mark.parametrize(
    ("restored", "told"),
    [
        ({"plant/1": b"off"}, "different contents"),
        ({}, "0 instead of 1"),
        ({"plant/1": b"on", "plant/2": b"x"}, "2 instead of 1"),
    ],
)
def test_a_message_that_stays_is_compared_with_its_content(
    restored: dict[str, bytes], told: str
) -> None:
    held, broker = messages({"plant/1": b"on"}, "passing"), Broker()
    broker.retained = restored
    (difference,) = differences(measure_messages(held), broker, held)
    assert told in difference


def test_a_large_message_has_no_content_in_the_api_and_is_compared_without() -> None:
    held, broker = messages({"large": b"x" * ((1 << 20) + 1)}), Broker()
    broker.retained = {"large": b""}  # the API leaves the payload out
    assert differences(measure_messages(held), broker, held) == []


@pytest.mark.parametrize("status", [401, 429, 500, 503])
def test_a_broker_that_does_not_answer_is_no_difference(status: int) -> None:
    held, broker = messages({"plant/1": b"on"}), Broker()
    broker.retained = {"plant/1": b"on"}
    broker.answers["/mqtt/retainer/message/plant%2F1"] = (status, "")
    with pytest.raises(TemporaryError, match=str(status)):
        measure(broker.api, manifest(measure_messages(held)), held)


def test_topics_that_are_no_utf8_are_counted_and_cost_no_other_message() -> None:
    broken = {"\udcff": (b"x", 0), "a/\udced\udca0\udc80": (b"y", 0)}
    table = {"plant/1": (b"on", 0), **broken}
    held = read_export(archive(table), "export", counts, all_expire=False).retained
    assert held is not None
    source, broker = measure_messages(held), Broker()
    ordinary = measure_messages(messages({"plant/1": b"on"}))
    assert source[: len(ordinary)] == ordinary
    # force_utf8 of emqx_utils_json:encode/1: jiffy writes a replacement character for one or more bytes
    broker.retained = {"plant/1": b"on", "\ufffd": b"x", "a/\ufffd": b"y"}
    assert differences(source, broker, held) == []
    del broker.retained["a/\ufffd"]
    assert differences(source, broker, held) == [f"{GARBLED}: 1 instead of 2"]


def test_a_replacement_character_that_a_client_wrote_stays_comparable_with_older_sets() -> None:
    held, broker = messages({"\ufffd": b"on"}), Broker()
    broker.retained = {"\ufffd": b"on"}
    assert differences(measure_messages(held), broker, held) == []


def test_bans_with_an_end_and_keys_with_an_expiry_are_counted_apart() -> None:
    end, never = "2099-01-01T00:00:00+00:00", "infinity"
    broker = Broker(
        {
            "/banned": [{"as": "clientid", "who": "a", "until": never}, {"as": "clientid", "who": "b", "until": end}],
            "/api_key": [{"name": "k", "expired_at": never}, {"name": "l", "expired_at": end}],
        }
    )  # fmt: skip
    for item in ("banned", "API keys"):
        assert (count(broker, item), count(broker, f"{item} that expire")) == (1, 1)
    source = measure_lists(broker.api).measures
    broker.lists["/banned"].pop()
    broker.lists["/api_key"].pop()
    assert differences(source, broker, None) == []
    broker.lists["/banned"].pop()
    assert differences(source, broker, None) == ["banned: 0 instead of 1: missing a"]


@pytest.mark.parametrize("path", ["/connectors", "/actions", "/sources"])
def test_settings_of_connectors_actions_and_sources_are_compared_and_states_are_not(
    path: str,
) -> None:
    row = {
        "name": "plant", "type": "mqtt", "enable": True, "parameters": {"topic": "plant/#"},
        "ssl": {"enable": True, "cacertfile": "/opt/emqx/data/certs/ca"},
        "status": "connected", "node_status": [{"node": "a"}], "rules": ["r"], "created_at": 1,
    }  # fmt: skip
    broker = Broker({path: [row]})
    source = measure_lists(broker.api).measures
    elsewhere = {"enable": True, "cacertfile": "/scratch/data/certs/ca"}
    broker.lists[path] = [{**row, "status": "disconnected", "node_status": [], "ssl": elsewhere}]
    assert differences(source, broker, None) == []
    broker.lists[path] = [{**row, "parameters": {"topic": "other/#"}}]
    assert len(differences(source, broker, None)) == 1


def test_rights_of_all_are_compared() -> None:
    rule = {"topic": "#", "permission": "deny", "action": "all"}
    broker = Broker({f"{ACL}/all": {"rules": [rule]}})
    assert count(broker, "rights of all") == 1
    broker.lists[f"{ACL}/all"] = {"rules": []}
    assert count(broker, "rights of all") == 0


def test_users_of_gates_are_left_out_whatever_round_made_them() -> None:
    users = [{"user_id": "device"}, {"user_id": "isa-cloud-probe-66-ab"}]
    path = "/authentication/password_based:built_in_database/users"
    assert count(Broker({path: users}), "users") == 1


def test_a_list_that_is_refused_is_named_and_costs_no_other() -> None:
    broker = Broker({"/rules": [{"id": "r"}], "/connectors": []})
    broker.answers["/connectors"] = (400, "not here")
    found = measure_lists(broker.api)
    assert found.refused == {"connectors": "HTTP 400 not here"}
    assert "rules" in {one.item for one in found.measures}
    # the proof's broker lists them, and the set has nothing to compare them with
    del broker.answers["/connectors"]
    broker.lists["/connectors"] = [{"name": "c"}]
    assert differences(found.measures, broker, None) == []


@pytest.mark.parametrize("status", [401, 500, 503])
def test_a_node_in_trouble_refuses_no_list(status: int) -> None:
    broker = Broker()
    broker.answers["/rules"] = (status, "")
    with pytest.raises(httpx.HTTPStatusError):
        measure_lists(broker.api)


def test_a_set_of_the_first_version_is_compared_as_it_was_measured() -> None:
    end = "2099-01-01T00:00:00+00:00"
    broker = Broker(
        {
            "/banned": [{"as": "clientid", "who": "b", "reason": "", "until": end}],
            "/sources": [{"name": "not measured then"}],
        }
    )
    broker.retained = {"plant/1": b"on"}
    first = [
        Measure(unit="cluster", item="banned", count=1, origin="source",
                digest="a2b72d60daed45f8db32a08c52609339/a2b72d60daed45f8db32a08c52609339"),
        Measure(unit="cluster", item=MESSAGES, count=1, origin="source",
                digest="6f3378d9756016104fd8745e9699f96d/6f3378d9756016104fd8745e9699f96d"),
    ]  # fmt: skip
    found = measure(broker.api, manifest(first, version=1), None)
    assert compare(first, {"": found}) == ()
