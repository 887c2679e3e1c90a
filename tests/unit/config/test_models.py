"""What a single setting may be."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from config.models import (
    COMPONENTS,
    ComponentSettings,
    DeploySettings,
    ImageSettings,
    KubernetesSettings,
    NfsStorage,
    ObjectStoreSettings,
    ScaledService,
    StorageSettings,
)
from config.sections.backups import BackupSettings
from config.values import Image

ONE = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p"
OTHER = "age1lggyhqrw2nlhcxprm67z43rta597azn8gknawjehu9d9dl0jq3yqqvfafg"
DIGEST = "sha256:" + "0f" * 32


def refusal(model: Any, data: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        model.model_validate(data)
    return str(caught.value.errors()[0]["msg"])


def test_components_stand_in_the_designs_order() -> None:
    assert COMPONENTS == ("postgresql", "redis", "nats", "minio", "qdrant", "neo4j", "emqx")
    assert tuple(ComponentSettings.model_fields) == COMPONENTS


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("quay.io/minio/mc:RELEASE.2025", ("quay.io", "minio/mc", "RELEASE.2025", "")),
        (f"r.example.com:5000/a:1@{DIGEST}", ("r.example.com:5000", "a", "1", DIGEST)),
        ("localhost/a/b/c:v1", ("localhost", "a/b/c", "v1", "")),
    ],
)
def test_an_image_is_taken_apart(text: str, parts: tuple[str, ...]) -> None:
    image = Image.model_validate(text)
    assert (image.registry, image.repository, image.tag, image.digest) == parts


@pytest.mark.parametrize(
    "text",
    [
        "redis",
        "redis:8.2",
        "bitnami/redis:8.2",  # no registry: Docker Hub would be guessed
        "r.example.com/redis",
        "r.example.com:5000/redis",
        "r.example.com/redis:1@sha256:12",
        "https://r.example.com/redis:1",
        "r.example.com/Redis:1",
        "",
        7,
        {"registry": "r.example.com", "repository": "redis", "tag": "latest"},
    ],
)
def test_an_image_without_registry_or_version_is_refused(text: Any) -> None:
    assert "registry/repository:tag" in refusal(Image, text)


@pytest.mark.parametrize("suffix", ["", f"@{DIGEST}"])
def test_latest_is_no_version(suffix: str) -> None:
    assert "latest" in refusal(Image, f"r.example.com/redis:latest{suffix}")


@pytest.mark.parametrize(
    "recipients",
    [
        [],
        [ONE],
        [ONE, ONE],
        [ONE, ONE + "  "],
    ],
)
def test_two_different_age_keys_are_needed(recipients: list[str]) -> None:
    assert "two different keys" in refusal(BackupSettings, {"age_recipients": recipients})


@pytest.mark.parametrize(
    "wrong", [ONE[:-1], ONE.upper(), ONE.replace("q", "b", 1), "ssh-ed25519 A"]
)
def test_what_is_no_age_key_is_refused(wrong: str) -> None:
    assert "is not an age public key" in refusal(BackupSettings, {"age_recipients": [OTHER, wrong]})


def test_a_private_age_key_is_refused_and_not_repeated() -> None:
    private = "AGE-SECRET-KEY-1" + "Q" * 58
    message = refusal(BackupSettings, {"age_recipients": [ONE, private]})
    assert "PRIVATE" in message
    assert "QQ" not in message


@pytest.mark.parametrize(
    ("endpoint", "port"),
    [
        ("https://s3.example.com", 443),
        ("http://s3.example.com", 80),
        ("http://127.0.0.1:9000/", 9000),
        ("https://[2001:db8::1]:9000", 9000),
    ],
)
def test_an_endpoint_is_scheme_host_and_port(endpoint: str, port: int) -> None:
    store = ObjectStoreSettings(endpoint=endpoint, bucket="backups")
    assert (store.endpoint, store.port) == (endpoint.rstrip("/"), port)


@pytest.mark.parametrize(
    "endpoint",
    [
        "s3.example.com",
        "ftp://s3.example.com",
        "https://",
        "https://user:hunter2@s3.example.com",
        "https://s3.example.com/bucket",
        "https://s3.example.com?key=hunter2",
        "https://s3.example.com:port",
        "https://s3.example .com",
    ],
)
def test_another_endpoint_is_refused_and_not_repeated(endpoint: str) -> None:
    message = refusal(ObjectStoreSettings, {"endpoint": endpoint, "bucket": "backups"})
    assert "http(s)://host" in message
    assert "hunter2" not in message


def test_an_empty_text_is_no_value() -> None:
    assert "at least 1 character" in refusal(NfsStorage, {"server": " ", "share": "/s"})


def test_minio_lives_on_the_block_class_unless_told_otherwise() -> None:
    parts = {
        "block": {"class_name": "fast", "provisioner": "csi", "parameters": {}},
        "nfs": {"server": "nas", "share": "/s"},
        "object": {"endpoint": "https://s3.example.com", "bucket": "backups"},
    }
    assert StorageSettings.model_validate(parts).minio_class == "fast"
    assert StorageSettings.model_validate(parts | {"minio_class": "raw"}).minio_class == "raw"


def test_a_service_cannot_have_more_pods_at_least_than_at_most() -> None:
    data = {"deployment": "search", "min_replicas": 5, "max_replicas": 2}
    assert "above max_replicas 2" in refusal(ScaledService, data)


@pytest.mark.parametrize(
    "data",
    [
        {"max_parallel_releases": 0},
        {"max_parallel_releases": 10},
        {"attempts": 0},
        {"retry_delay_seconds": -1},
        {"gate_timeout_seconds": float("inf")},
        {"lease_seconds": 2},
    ],
)
def test_limits_of_a_deploy_are_kept(data: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        DeploySettings.model_validate(data)


def test_settings_never_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        DeploySettings().__setattr__("attempts", 9)


def test_each_namespace_is_another_one() -> None:
    names = {"namespace": "a", "control_namespace": "b", "verify_namespace": "a"}
    assert "a namespace of their own" in refusal(KubernetesSettings, names)


@pytest.mark.parametrize("registry", ["docker.io", "index.docker.io", "registry-1.docker.io"])
def test_a_version_that_left_docker_hub_is_refused_with_the_way_on(registry: str) -> None:
    names = [name for name, field in ImageSettings.model_fields.items() if field.is_required()]
    gone = f"{registry}/bitnami/redis-cluster:8.2.1@{DIGEST}"
    told = refusal(ImageSettings, dict.fromkeys(names, gone))
    assert "since September 2025" in told and "docker.io/bitnamilegacy/redis-cluster" in told


@pytest.mark.parametrize("path", ["docker.io/bitnamilegacy/redis", "harbor.example/bitnami/redis"])
def test_other_registries_of_the_same_image_are_taken(path: str) -> None:
    names = [name for name, field in ImageSettings.model_fields.items() if field.is_required()]
    assert ImageSettings.model_validate(dict.fromkeys(names, f"{path}:8.2.1"))


def test_a_tag_keeps_its_digest_where_a_chart_knows_tags_only() -> None:
    assert Image.model_validate(f"r.example/a:1@{DIGEST}").pinned_tag == f"1@{DIGEST}"
    assert Image.model_validate("r.example/a:1").pinned_tag == "1"


@pytest.mark.parametrize("tag", ["v1.19.0-unprivileged", "stable", f"v1.19.0@{DIGEST}"])
def test_qdrants_tag_is_a_version_since_its_chart_compares_it(tag: str) -> None:
    names = [name for name, field in ImageSettings.model_fields.items() if field.is_required()]
    images = dict.fromkeys(names, "r.example/a:1")
    assert "accepts no digest" in refusal(ImageSettings, {**images, "qdrant": f"r.example/q:{tag}"})
    assert ImageSettings.model_validate({**images, "qdrant": "r.example/q:v1.19.0"})
