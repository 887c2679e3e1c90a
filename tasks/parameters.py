"""Makes the Prefect server refuse parameters that a flow does not have.

The schema that Prefect makes of a flow's signature allows further ones: a call by the API with a misspelt parameter was
answered with 201, and the run crashed. In JSON Schema `additionalProperties: false` is what forbids them
(https://json-schema.org/understanding-json-schema/reference/object#additionalproperties); the server checks a call
against it and answers 409 (`create_flow_run_from_deployment` in prefect/server/api/deployments.py, 3.8.8).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tasks.server import deployments, patch, post


def unchecked(live: Iterable[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Deployments of this project that take any parameter, by name.

    Args:
        live: all deployments of the server, as its API gives them.
    """
    declared = {one["name"] for one in deployments()}
    return {
        one["name"]: one
        for one in live
        if one["name"] in declared
        and not (
            one["enforce_parameter_schema"]
            and (one["parameter_openapi_schema"] or {}).get("additionalProperties") is False
        )
    }


def refuse_unknown() -> list[str]:
    """Have the server refuse unknown parameters, where it does not; gives the names of the deployments.

    Raises:
        PermanentError, TemporaryError: the server refuses, or is away.
    """
    found = unchecked(post("/deployments/filter", {"limit": 200}))
    for one in found.values():
        schema = {**(one["parameter_openapi_schema"] or {}), "additionalProperties": False}
        body = {"parameter_openapi_schema": schema, "enforce_parameter_schema": True}
        patch(f"/deployments/{one['id']}", body)
    return sorted(found)
