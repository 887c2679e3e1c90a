"""The gate of EMQX: one cluster, no way in without a password, and a message that travels by a user of its own."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any, cast

import paho.mqtt.client
import pytest

from components.base import Check, Report, Role, Workload
from components.emqx import readiness
from components.emqx.readiness import ask, workloads
from components.questions import PROBE

from .emqx_cluster import Cluster

TRAVELS = "message published and received on another node"
CLOSED = "no way in without a password"


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    made = Cluster()
    monkeypatch.setattr(paho.mqtt.client, "Client", made.client)
    monkeypatch.setattr(readiness, "REFUSED_SECONDS", 0.05)
    return made


def asked(cluster: Cluster, seconds: float = 4.0) -> Report:
    return ask(cluster.access(seconds))


def bad(cluster: Cluster, seconds: float = 4.0) -> dict[str, Check]:
    return {check.name: check for check in asked(cluster, seconds).checks if not check.ok}


def travels(cluster: Cluster, seconds: float = 4.0) -> Check:
    return next(check for check in asked(cluster, seconds).checks if check.name == TRAVELS)


def test_a_healthy_cluster_answers_every_check_and_keeps_nothing(cluster: Cluster) -> None:
    report = asked(cluster)
    assert [(one.name, one.ok, one.hint, one.critical) for one in report.checks] == [
        ("nodes answer", True, "3 of 3", False),
        ("nodes run", True, "3 of 3 nodes", False),
        ("one cluster", True, "", False),
        (TRAVELS, True, "published through emqx-2, received through emqx-0", True),
        (CLOSED, True, "", False),
    ]
    assert report.roles == tuple(Role(f"emqx-{n}", "core") for n in range(3))
    assert cluster.users == {}
    assert cluster.left == set()
    receiver, sender, stranger = cluster.sessions
    assert (receiver[0], sender[0], stranger) == ("emqx-0", "emqx-2", ("emqx-0", ""))
    assert receiver[1] == sender[1]
    assert receiver[1].startswith(f"{PROBE}-")


def test_all_nodes_of_the_settings_are_wanted() -> None:
    settings = SimpleNamespace(components=SimpleNamespace(emqx=SimpleNamespace(members=3)))
    assert workloads(cast(Any, settings)) == (Workload("StatefulSet", "emqx", 3),)


def test_where_no_node_answers_none_runs(cluster: Cluster) -> None:
    cluster.away = set(cluster.members)
    report = asked(cluster)
    assert [(one.name, one.ok, one.critical) for one in report.checks] == [
        ("nodes answer", False, False),
        ("nodes run", False, True),
    ]
    assert report.checks[1].hint == "no node answers"
    assert report.roles == ()


def test_a_node_that_is_away_leaves_the_others_in_use(cluster: Cluster) -> None:
    cluster.away = {"emqx-0"}
    rest = {"emqx-1": "running", "emqx-2": "running"}
    cluster.views = dict.fromkeys(rest, rest)
    report = asked(cluster)
    found = {one.name: one for one in report.checks if not one.ok}
    assert list(found) == ["nodes answer", "nodes run"]
    assert (found["nodes run"].hint, found["nodes run"].critical) == ("2 of 3 nodes", False)
    assert report.checks[3].hint == "published through emqx-2, received through emqx-1"
    assert report.roles == (Role("emqx-1", "core"), Role("emqx-2", "core"))


def test_a_stopped_node_is_named_by_whose_view_it_is(cluster: Cluster) -> None:
    cluster.views = {"emqx-1": {"emqx-0": "running", "emqx-1": "running", "emqx-2": "stopped"}}
    found = bad(cluster)
    assert found["nodes run"].hint == "emqx-2 of emqx-1's view: stopped"
    assert found["one cluster"].hint == (
        "emqx-1: emqx-0, emqx-1: the cluster is split; restart the smaller part"
    )
    assert not found["one cluster"].critical


def test_halves_that_are_content_with_themselves_are_no_cluster(cluster: Cluster) -> None:
    half = {"emqx-0": "running", "emqx-1": "running"}
    cluster.views = {"emqx-0": half, "emqx-1": half, "emqx-2": {"emqx-2": "running"}}
    found = bad(cluster)
    assert found["nodes run"].hint == "2 of 3 nodes"
    assert found["one cluster"].hint.startswith("emqx-2: emqx-2: the cluster is split")


def test_whoever_comes_in_without_a_password_is_a_finding(cluster: Cluster) -> None:
    cluster.anonymous = True
    (check,) = bad(cluster).values()
    assert (check.name, check.critical) == (CLOSED, False)
    assert check.hint == "no authenticator is configured: anyone can publish"
    assert cluster.left == set()


# ---------------------------------------------------------------------- a message that travels
def test_a_message_that_gets_lost_on_the_way_is_sent_again(cluster: Cluster) -> None:
    cluster.drops = 1
    assert bad(cluster) == {}


def test_a_message_that_never_arrives_is_down(cluster: Cluster) -> None:
    cluster.drops = 1000
    check = travels(cluster, 0.4)
    assert not check.ok and check.critical
    assert "emqx-0 did not receive what emqx-2 published" in check.hint
    assert cluster.users == {}


def test_a_message_that_arrives_as_another_is_down(cluster: Cluster) -> None:
    cluster.changes = lambda payload: b"another"
    check = travels(cluster)
    assert not check.ok
    assert check.hint == "emqx-0 received another message than was published"


def test_publications_that_rules_refuse_make_the_answer_unknown(cluster: Cluster) -> None:
    cluster.publishes = False
    check = travels(cluster, 0.4)
    assert (check.ok, check.unknown) == (True, True)
    assert check.hint.startswith(f"authorization refuses publications to {PROBE}/gate/")
    assert "emqx-2 POST /publish" in cluster.asked  # through the node that the client published at


def test_a_subscription_that_rules_refuse_makes_the_answer_unknown(cluster: Cluster) -> None:
    cluster.subscribes = "refused"
    check = travels(cluster)
    assert check.unknown
    assert check.hint.startswith(f"authorization refuses subscriptions to {PROBE}/gate/")
    assert cluster.users == {}
    assert cluster.left == set()


@pytest.mark.parametrize(
    ("deny_action", "unknown"), [("disconnect", True), ("ignore", False), ("", False)]
)
def test_a_connection_that_ends_at_the_subscription_is_a_rule_only_where_rules_do_so(
    deny_action: str, unknown: bool, cluster: Cluster
) -> None:
    cluster.subscribes, cluster.deny_action = "disconnected", deny_action
    check = travels(cluster)
    assert check.unknown is unknown
    if not unknown:
        assert "emqx-0 closed the connection at the subscription" in check.hint


def test_a_subscription_without_an_answer_is_down(cluster: Cluster) -> None:
    cluster.subscribes = "sent no output"
    check = travels(cluster, 0.1)
    assert not check.ok
    assert "emqx-0 did not acknowledge the subscription within 0 s" in check.hint


def test_a_connect_without_an_answer_is_down(cluster: Cluster) -> None:
    cluster.silent = True
    found = bad(cluster, 0.1)
    assert "emqx-0 did not answer the CONNECT within 0 s" in found[TRAVELS].hint
    assert "emqx-0 did not answer the CONNECT within 0 s" in found[CLOSED].hint
    assert cluster.left == set()


def test_a_node_that_hears_late_of_the_user_is_tried_again(cluster: Cluster) -> None:
    cluster.late = 2
    assert bad(cluster) == {}


def test_a_user_that_is_refused_to_the_end_is_down(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Other(dict[str, str]):
        def get(self, *_: Any) -> Any:
            return "another password"

    cluster.users = Other()
    check = travels(cluster, 0.1)
    assert not check.ok
    assert "emqx-0 refused the connection" in check.hint


def test_without_an_authenticator_no_user_is_needed(cluster: Cluster) -> None:
    cluster.users, cluster.anonymous = None, True
    assert list(bad(cluster)) == [CLOSED]


def test_clients_that_another_authenticator_knows_make_the_answer_unknown(cluster: Cluster) -> None:
    cluster.users = None
    cluster.authenticators = [
        {"id": "jwt", "enable": True},
        {"id": "ldap", "enable": False},
        {"id": "password_based:http"},
    ]
    check = travels(cluster)
    assert check.unknown
    assert check.hint == (
        "clients are identified by jwt, password_based:http only: no user can be created for a check"
    )


def test_users_of_killed_rounds_go_after_an_hour_and_no_client_goes(cluster: Cluster) -> None:
    now = int(time.time())
    old, young = f"{PROBE}-{now - 3700:x}-ab", f"{PROBE}-{now - 3500:x}-ab"
    others = [f"{PROBE}-of-a-client", f"my-{PROBE}-1-a"]
    cluster.users = dict.fromkeys([old, young, PROBE, *others], "")
    assert bad(cluster) == {}
    assert sorted(cluster.users) == sorted([young, *others])
