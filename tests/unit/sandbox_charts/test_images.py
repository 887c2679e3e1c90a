"""Every image is a setting, and its digest reaches the pods by way of each chart's own keys."""

from __future__ import annotations

import hashlib

import pytest

from config.loading import load
from config.models import ImageSettings
from operations.environment.render import site_values
from tests.contracts.shape import workloads

from .rendering import PRODUCTION, chart_of, releases, template

IMAGES = {
    name: f"registry.example:5000/isa/{name.replace('_', '-')}:1.2.3@sha256:"
    + hashlib.sha256(name.encode()).hexdigest()
    for name in ImageSettings.model_fields
}
# Its chart reads the tag as a version: no digest, and a suffix of the chart's own.
IMAGES["qdrant"] = "registry.example:5000/isa/qdrant:v1.2.3"
JOBS_ONLY = {"minio_client"}  # production's values start none of the chart's jobs


def rendered_images() -> dict[str, set[str]]:
    """Release → images of its pods, with production's values and every image pinned by the settings."""
    environ = {f"ISA_IMAGES__{name.upper()}": image for name, image in IMAGES.items()}
    environ |= {
        "ISA_PLATFORM__HELMFILE": str(PRODUCTION),
        "ISA_COMPONENTS__NEO4J__MEMBERS": "3",
        "ISA_COMPONENTS__NEO4J__EDITION": "enterprise",
    }
    site = site_values(load("sandbox", environ))
    found: dict[str, set[str]] = {}
    for name, release in releases(PRODUCTION).items():
        documents = template(chart_of(release), *release.values, site.get(name, {}), release=name)
        pods = [document["spec"]["template"]["spec"] for document in workloads(documents)]
        found[name] = {
            container["image"]
            for pod in pods
            for container in [*pod["containers"], *(pod.get("initContainers") or ())]
        }
    return found


def name_of(image: str) -> str:
    """The setting that an image is of; "" if of none. Bitnami's charts leave the tag out where there is a digest."""
    known = {
        value.partition("@")[2] or f"{value}-unprivileged": key for key, value in IMAGES.items()
    }
    return known.get(image.partition("@")[2] or image, "")


def test_no_container_runs_an_image_that_the_settings_do_not_pin() -> None:
    strays = {
        f"{release}: {image}"
        for release, images in rendered_images().items()
        for image in images
        if not name_of(image) or not image.startswith("registry.example:5000/isa/")
    }
    assert strays == set()


def test_every_image_of_the_settings_is_that_of_a_container() -> None:
    used = {name_of(image) for images in rendered_images().values() for image in images}
    assert set(IMAGES) - used == JOBS_ONLY


@pytest.mark.parametrize("name", ["nats", "qdrant", "emqx", "neo4j"])
def test_the_default_image_is_the_version_of_the_chart(name: str) -> None:
    chart = {"neo4j": "neo4j-1"}.get(name, name)
    image = ImageSettings.model_fields[name].default
    assert image.tag.removeprefix("v").partition("-")[0] == releases(PRODUCTION)[chart].version


def test_qdrants_readiness_is_asked_where_its_version_answers() -> None:
    site = site_values(load("sandbox", {})).get("qdrant", {})
    (workload,) = workloads(template("qdrant", *releases(PRODUCTION)["qdrant"].values, site))
    (container,) = workload["spec"]["template"]["spec"]["containers"]
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert not workload["spec"]["template"]["spec"].get("initContainers")
