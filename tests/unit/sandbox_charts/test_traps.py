"""Values that the real charts refuse, or turn into something dangerous, do not slip through."""

from __future__ import annotations

from typing import Any

import pytest

from tests.contracts.shape import of_kind

from .rendering import PRODUCTION, releases, template

SITE_IMAGE = {"registry": "harbor.example.com", "repository": "pg", "tag": "17.6.0"}
CASES: dict[str, tuple[str, dict[str, Any], str]] = {
    "an image of another registry without the flag": (
        "postgresql-ha",
        {"postgresql": {"image": SITE_IMAGE}},
        "allowInsecureImages",
    ),
    "a Redis image of another registry without the flag": (
        "redis-cluster",
        {"image": SITE_IMAGE},
        "allowInsecureImages",
    ),
    "PostgreSQL without its Secret": (
        "postgresql-ha",
        {"postgresql": {"existingSecret": ""}},
        "existingSecret",
    ),
    "Redis without its Secret": ("redis-cluster", {"existingSecret": ""}, "existingSecret"),
    "MinIO without its Secret": ("minio", {"existingSecret": ""}, "existingSecret"),
    "a MinIO user": ("minio", {"users": [{"accessKey": "console"}]}, "users"),
    "a PostgreSQL witness": ("postgresql-ha", {"witness": {"create": True}}, "witness"),
    "Redis without a password": ("redis-cluster", {"usePassword": False}, "usePassword"),
    "a single MinIO server": ("minio", {"mode": "standalone"}, "distributed"),
    "EMQX metrics": ("emqx", {"metrics": {"enabled": True}}, "known password"),
    "NATS' shell": ("nats", {"natsBox": {"enabled": True}}, "natsBox"),
    "Neo4j Enterprise without a licence": (
        "neo4j",
        {"neo4j": {"acceptLicenseAgreement": "no"}},
        "acceptLicenseAgreement",
    ),
    "a Neo4j setting that is no string": (
        "neo4j",
        {"neo4j": {"acceptLicenseAgreement": "yes"}, "config": {"server.backup.enabled": True}},
        "must be a string",
    ),
    "a lookup without a cluster": (
        "neo4j",
        {"neo4j": {"acceptLicenseAgreement": "yes"}, "disableLookups": False},
        "disableLookups",
    ),
    "Neo4j's LoadBalancer": (
        "neo4j",
        {"neo4j": {"acceptLicenseAgreement": "yes"}, "services": {"neo4j": {"enabled": True}}},
        "LoadBalancer",
    ),
}


def values_of(chart: str) -> tuple[Any, ...]:
    name = "neo4j-1" if chart == "neo4j" else chart
    return releases(PRODUCTION)[name].values


@pytest.mark.parametrize("case", CASES)
def test_is_refused(case: str) -> None:
    chart, values, message = CASES[case]

    with pytest.raises(RuntimeError, match=message):
        template(chart, *values_of(chart), values)


def test_minio_makes_no_default_user_only_because_production_says_so() -> None:
    with pytest.raises(RuntimeError, match="users"):
        template("minio", {"existingSecret": "minio-auth"})


def test_emqx_budget_is_lost_where_the_api_is_not_known() -> None:
    without = template("emqx", *values_of("emqx"), api_versions=())

    assert not of_kind(without, "PodDisruptionBudget")
    assert of_kind(template("emqx", *values_of("emqx")), "PodDisruptionBudget")


def test_emqx_default_password_stays_out_of_the_config_map() -> None:
    (environment,) = of_kind(template("emqx", *values_of("emqx")), "ConfigMap")

    assert "EMQX_DASHBOARD__DEFAULT_PASSWORD" not in environment["data"]
    assert environment["data"]["EMQX_DASHBOARD__DEFAULT_USERNAME"] == "isa"


def test_nats_passwords_are_left_to_the_servers_environment() -> None:
    (config,) = of_kind(template("nats", *values_of("nats"), release="nats"), "ConfigMap")

    assert '"password": $NATS_APP_PASSWORD' in config["data"]["nats.conf"]
    assert '"max_file_store": 45Gi' in config["data"]["nats.conf"]


def test_a_witness_budget_appears_unless_it_is_switched_off() -> None:
    budgets = of_kind(
        template(
            "postgresql-ha", *values_of("postgresql-ha"), {"witness": {"pdb": {"create": True}}}
        ),
        "PodDisruptionBudget",
    )

    assert [budget["metadata"]["name"] for budget in budgets] == [
        "postgresql-ha-pgpool",
        "postgresql-ha-postgresql",
        "postgresql-ha-witness",
    ]
