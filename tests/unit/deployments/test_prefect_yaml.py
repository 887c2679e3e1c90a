from __future__ import annotations

import inspect
import json
from importlib import import_module
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import yaml
from prefect.cli.deploy import _models as prefect_models
from prefect.cli.deploy._models import PrefectYamlModel
from prefect.client.schemas import actions as prefect_actions
from prefect.utilities.callables import parameter_schema
from pydantic import BaseModel

FILE = Path(__file__).resolve().parents[3] / "prefect.yaml"
DOCUMENT: dict[str, Any] = yaml.safe_load(FILE.read_text())
ANCHORS = {
    "definitions"
}  # ours: Prefect ignores it, which is what makes it a place for YAML anchors


def models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in models(part)]


def fields(model: type[BaseModel]) -> dict[str, Any]:
    """Keys of a model as YAML writes them, with their types (Prefect leaves some as forward references)."""
    hints = get_type_hints(model, {**vars(prefect_actions), **vars(prefect_models)})
    return {field.alias or name: hints[name] for name, field in model.model_fields.items()}


def unknown_keys(value: Any, candidates: list[type[BaseModel]], path: str) -> list[str]:
    """Keys that no model of Prefect's has: it would drop them without a word."""
    if isinstance(value, list):
        return [
            k
            for i, item in enumerate(value)
            for k in unknown_keys(item, candidates, f"{path}[{i}]")
        ]
    if not isinstance(value, dict) or not candidates:
        return []
    found = []
    for key, entry in value.items():
        types = [known[key] for known in map(fields, candidates) if key in known]
        where = f"{path}.{key}".lstrip(".")
        inner = [model for annotation in types for model in models(annotation)]
        found += unknown_keys(entry, inner, where) if types else [where]
    return found


def test_prefect_knows_every_key() -> None:
    document = {key: value for key, value in DOCUMENT.items() if key not in ANCHORS}
    assert unknown_keys(document, [PrefectYamlModel], "") == []


@pytest.mark.parametrize(
    "path",
    [
        ("deployments", 0, "entrypont"),
        ("deployments", 0, "work_pool", "nam"),
        ("deployments", 0, "concurrency_limit", "limt"),
        ("deploymets",),
    ],
)
def test_a_misspelt_key_is_found(path: tuple[Any, ...]) -> None:
    document = json.loads(json.dumps(DOCUMENT))  # an anchor's places are one object until then
    document.pop("definitions")
    place = document
    for part in path[:-1]:
        place = place[part]
    place[path[-1]] = "x"
    assert len(unknown_keys(document, [PrefectYamlModel], "")) == 1


def flow_of(deployment: dict[str, Any]) -> Any:
    file, _, name = deployment["entrypoint"].partition(":")
    return getattr(import_module(file.removesuffix(".py").replace("/", ".")), name)


each_deployment = pytest.mark.parametrize(
    "deployment", DOCUMENT["deployments"], ids=lambda d: d["name"]
)


@each_deployment
def test_the_entrypoint_exists_and_takes_the_parameters(deployment: dict[str, Any]) -> None:
    flow = flow_of(deployment)
    wanted = [deployment, *deployment.get("schedules", []), *deployment.get("triggers", [])]
    given = {key for one in wanted for key in one.get("parameters", {})}
    assert given <= inspect.signature(flow.fn).parameters.keys()


# What the UI's form offers for a field: these are typed in by hand, everything else is chosen.
BY_HAND = {"at", "environment", "slot", "confirm", "backup", "backups", "units", "restore"}


def choices(field: dict[str, Any]) -> bool:
    """Whether a form offers the values of a field: an enum, one of several of them, a switch."""
    if "anyOf" in field:
        return any(choices(one) for one in field["anyOf"])
    if field.get("type") == "array":
        return choices(field["items"])
    return "enum" in field or field.get("type") == "boolean"


@each_deployment
def test_its_form_explains_every_field_and_offers_what_can_be_chosen(
    deployment: dict[str, Any],
) -> None:
    schema = parameter_schema(flow_of(deployment))
    assert set(schema.required) <= {"environment", "confirm", "component"}
    for name, field in schema.properties.items():
        assert field.get("description"), f"{name} is not explained"
        assert choices(field) != (name in BY_HAND), f"{name}: {field}"
        assert name in schema.required or "default" in field
    fixed = {"environment"} & deployment["parameters"].keys()
    assert fixed == {"environment"}, "nobody should have to type it"


def test_a_run_that_pauses_has_no_place_which_it_would_lose() -> None:
    (rebuild,) = (one for one in DOCUMENT["deployments"] if one["name"] == "rebuild-component")
    assert "concurrency_limit" not in rebuild
