"""A call by the API with a parameter that the flow does not have is refused before there is a run."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import pytest
from prefect.utilities.schema_tools import ValidationError, validate

from tasks import doctor, parameters
from tasks.parameters import refuse_unknown, unchecked
from tasks.server import deployments
from tasks.setup import filled

DECLARED = deployments()
ISA_ENV = {"ISA_ENV": "sandbox"}
NAMES = [one["name"] for one in DECLARED]


def schema_of(deployment: dict[str, Any]) -> dict[str, Any]:
    """As `prefect deploy` sends it to the server."""
    file, _, name = deployment["entrypoint"].partition(":")
    flow = getattr(import_module(file.removesuffix(".py").replace("/", ".")), name)
    schema: dict[str, Any] = flow.parameters.model_dump(mode="json", exclude_unset=True)
    return schema


class Server:
    """The deployments of a server, as its API lists and changes them."""

    def __init__(self) -> None:
        self.live = [
            {
                "id": one["name"],
                "name": one["name"],
                "enforce_parameter_schema": True,
                "parameter_openapi_schema": schema_of(one),
            }
            for one in DECLARED
        ]
        self.live.append({**self.live[0], "id": "else", "name": "somebody-elses"})

    def post(self, path: str, body: Any) -> Any:
        assert path == "/deployments/filter"
        return self.live

    def patch(self, path: str, body: dict[str, Any]) -> None:
        (one,) = (one for one in self.live if path == f"/deployments/{one['id']}")
        one.update(body)

    def takes(self, name: str, given: dict[str, Any]) -> bool:
        """As `create_flow_run_from_deployment` asks (prefect/server/api/deployments.py, 3.8.8)."""
        (one,) = (one for one in self.live if one["name"] == name)
        try:
            validate(given, one["parameter_openapi_schema"], raise_on_error=True)
        except ValidationError:
            return False
        return True


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    made = Server()
    monkeypatch.setattr(parameters, "post", made.post)
    monkeypatch.setattr(parameters, "patch", made.patch)
    monkeypatch.setattr(doctor, "post", made.post)
    return made


def required(deployment: dict[str, Any]) -> dict[str, Any]:
    """What a call has to say."""
    more = {"component": "nats", "confirm": "nats"}
    names = schema_of(deployment)["required"]
    return {"environment": "sandbox"} | {k: v for k, v in more.items() if k in names}


@pytest.mark.parametrize("name", NAMES)
def test_a_parameter_that_the_flow_does_not_have_is_refused(name: str, server: Server) -> None:
    (declared,) = (one for one in DECLARED if one["name"] == name)
    good = required(declared)
    assert server.takes(name, {**good, "onyl": ["redis"]})  # as Prefect leaves it

    assert refuse_unknown() == sorted(NAMES)

    assert server.takes(name, good)
    assert not server.takes(name, {**good, "onyl": ["redis"]})
    assert refuse_unknown() == []


def test_what_schedules_and_triggers_say_is_taken(server: Server) -> None:
    refuse_unknown()
    for one in DECLARED:
        for more in (*one.get("schedules", ()), *one.get("triggers", ()), {}):
            fixed = {key: filled(value, ISA_ENV) for key, value in one["parameters"].items()}
            given = required(one) | fixed | more.get("parameters", {})
            assert server.takes(one["name"], given), (one["name"], more)


def test_somebody_elses_deployment_is_left_alone(server: Server) -> None:
    refuse_unknown()
    assert "additionalProperties" not in server.live[-1]["parameter_openapi_schema"]
    assert "somebody-elses" not in unchecked(server.live)


def test_the_doctor_finds_it_and_puts_it_right(server: Server) -> None:
    (found,) = doctor._parameters()
    assert not found.check.ok and "isa setup" in found.check.hint
    assert found.mend is not None and "deploy-platform" in found.mend()
    (after,) = doctor._parameters()
    assert after.check.ok
