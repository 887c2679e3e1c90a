"""What callers of the API may pass to flows: every string has a pattern or a limit, checked before anything runs.

The server checks a call against the JSON schema of the same types (`isa setup` uploads it) and answers 409. The run's
own process checks again, because a caller can change the schema and the parameters of an existing run.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, get_args, get_type_hints

from pydantic import ConfigDict, Field, ValidationError, create_model

from config.models import Component
from config.values import DnsLabel
from errors import PermanentError
from operations.backup.slot import SLOT

# `archive.backup.manifest.IDENTITY` without its named groups, which JSON Schema's regular expressions do not have.
_IDENTITY = r"[a-z0-9]{1,20}-[0-9]{8}T[0-9]{6}Z-[0-9a-f]{6}"

EnvironmentName = Annotated[DnsLabel, Field(max_length=63)]
"""Name of a settings file."""
Set = Literal[Component, "platform"]
SetId = Annotated[str, Field(pattern=f"^{_IDENTITY}$", max_length=50)]
"""Id of a backup, `component-time-nonce`."""
RestoreSource = Annotated[str, Field(pattern=f"^(fresh|none|{_IDENTITY})$", max_length=50)]
"""What a rebuild restores."""
Slot = Annotated[str, Field(pattern=f"^({SLOT.pattern})?$", max_length=100)]
"""Idempotency key of a backup, `2026-11-23` (`operations.backup.slot`); "" for none."""
PointInTime = Annotated[
    str,
    Field(
        pattern=r"^([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]{8,15}(Z|[+-][0-9]{2}:[0-9]{2})|[0-9A-Fa-f]{1,8}/[0-9A-Fa-f]{1,8})?$",
        max_length=40,
    ),
]
"""A time with its UTC offset, or an LSN (`archive.wal.target`); "" for none."""
Unit = Annotated[
    str, Field(min_length=1, max_length=600, pattern=r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029]+$")
]
"""Unit of a backup, `stream ACCOUNT/NAME`; engines allow 255 bytes a name. A unit whose name has control
characters can only be restored with the whole backup, or by `isa restore --local`."""
Sets = Annotated[list[Set], Field(max_length=len(get_args(Set)))]
SetIds = Annotated[list[SetId], Field(max_length=1000)]
Units = Annotated[list[Unit], Field(max_length=1000)]
Confirmation = Annotated[DnsLabel, Field(max_length=63)]
"""Name of a component or of the environment, typed by hand."""


def validate(function: Callable[..., Any], parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Check a run's parameters against the types of its flow, and return them with the defaults.

    Unlike Prefect's own check it loads nothing: no type accepts `{"$ref": …}`.

    Args:
        function: that the flow runs.
        parameters: as the API returns them.

    Raises:
        PermanentError: names each parameter that is unknown, missing or of another type; no values.
    """
    hints = get_type_hints(function, include_extras=True)
    fields: dict[str, Any] = {
        name: (hints[name], ... if one.default is inspect.Parameter.empty else one.default)
        for name, one in inspect.signature(function).parameters.items()
    }
    model = create_model("Parameters", __config__=ConfigDict(extra="forbid", strict=True), **fields)
    try:
        valid: dict[str, Any] = model.model_validate(dict(parameters)).model_dump()
        return valid
    except ValidationError as exc:
        faults = [
            f"parameter {'.'.join(str(part) for part in fault['loc'])[:80]!r}: {fault['msg']}"
            for fault in exc.errors(include_input=False, include_url=False, include_context=False)
        ]
        raise PermanentError("; ".join(faults)) from None
