"""What a command printed with `--json`, checked against the command's schema."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from typing import Any

from jsonschema import Draft202012Validator

from cli.json_reference import documents


def checked(words: Sequence[str], stdout: str, stderr: str = "") -> dict[str, Any]:
    """The document that a command printed.

    Args:
        words: of the command, without `isa`.
        stdout: its standard output.
        stderr: its standard error, which holds the document where nothing is on standard output.
    """
    command = document_of(words) if stdout else "isa"
    found: dict[str, Any] = json.loads(stdout or stderr)
    faults = [
        f"{fault.json_path}: {fault.message}" for fault in validator(command).iter_errors(found)
    ]
    assert not faults, f"{command}: {faults}"
    return found


def document_of(words: Sequence[str]) -> str:
    """Command, with the option that changes what it prints: `isa restore --plan`."""
    command = "isa"
    for word in words:
        if not any(f"{known} ".startswith(f"{command} {word} ") for known in documents()):
            break
        command = f"{command} {word}"
    return next((more for word in words if (more := f"{command} {word}") in documents()), command)


@cache
def validator(command: str) -> Draft202012Validator:
    """Of a command's document."""
    return Draft202012Validator(documents()[command].schema())
