"""Compares two versions of an object field by field: the path, the old value, the new one.

Items of a list are matched by their `name` if all have a unique one, so that a container inserted at the front does
not make every other one differ. Quantities are compared as amounts (`1000m` is `1`).
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from kubernetes.utils.quantity import parse_quantity

ABSENT = "(absent)"
HIDDEN = "(hidden)"
# Below these keys every text is a quantity: https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
QUANTITIES = {
    "requests", "limits", "hard", "capacity", "max", "min", "default", "defaultRequest", "sizeLimit",
}  # fmt: skip
# A value under such a name may be a credential that this process never read, and so cannot know as one.
CREDENTIAL = re.compile(r"passw|secret|token|credential|cookie|(api|access|private)[-_]?key", re.I)
LONGEST = 60  # characters of a value in a line of a plan
LINES = 4  # changed lines of a text that are shown


@dataclass(frozen=True)
class Change:
    """One field that differs.

    Attributes:
        path: `spec.template.spec.containers[emqx].env[EXTRA]`.
        old: its value, None if it is absent.
        new: its new value, None if it would be absent.
        manager: field manager that added it, "" for a field of ours.
        hidden: whether the values are credentials, as all of a Secret's are.
    """

    path: str
    old: Any
    new: Any
    manager: str = ""
    hidden: bool = False

    def __str__(self) -> str:
        by = f" (added by {self.manager})" if self.manager else ""
        return f"{self.path} {self._values()}{by}"

    def touches(self, other: Change) -> bool:
        """Whether one of the two paths is equal to or below the other."""
        short, long = sorted((self.path, other.path), key=len)
        return long == short or long.startswith((f"{short}.", f"{short}["))

    def as_json(self) -> dict[str, Any]:
        """The change as `--json` prints it: absent values are null."""
        hide = self._is_hidden()
        old, new = (HIDDEN if hide and v is not None else v for v in (self.old, self.new))
        return {"path": self.path, "old": old, "new": new, "manager": self.manager}

    def _values(self) -> str:
        if self._is_hidden():
            return HIDDEN
        if isinstance(self.old, str) and isinstance(self.new, str):
            lines = _changed_lines(self.old, self.new)
            if lines:
                return lines
        return f"{_short(self.old)} → {_short(self.new)}"

    def _is_hidden(self) -> bool:
        return self.hidden or bool(CREDENTIAL.search(self.path))


def differences(old: Any, new: Any, path: str = "") -> Iterator[Change]:
    """Every field in which two versions differ, at the highest path at which one of them is absent."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*old, *(key for key in new if key not in old)]:
            yield from differences(old.get(key), new.get(key), join(path, key))
    elif isinstance(old, list) and isinstance(new, list) and items(old, new) is not None:
        old_items, new_items = items(old, new) or ({}, {})
        for key in [*old_items, *(key for key in new_items if key not in old_items)]:
            yield from differences(old_items.get(key), new_items.get(key), f"{path}[{key}]")
    elif not same(old, new, path):
        yield Change(path, old, new)


def missing(wanted: Any, live: Any, path: str = "") -> Iterator[Change]:
    """Return every field in which a live object lacks the declared value; its additional fields are ignored."""
    if isinstance(wanted, dict) and isinstance(live, dict):
        for key, value in wanted.items():
            yield from missing(value, live.get(key), join(path, key))
    elif isinstance(wanted, list) and isinstance(live, list) and items(live, wanted) is not None:
        live_items, wanted_items = items(live, wanted) or ({}, {})
        for key, value in wanted_items.items():
            yield from missing(value, live_items.get(key), f"{path}[{key}]")
    elif not same(live, wanted, path):
        yield Change(path, live, wanted)


def items(old: list[Any], new: list[Any]) -> tuple[dict[Any, Any], dict[Any, Any]] | None:
    """Return both lists as maps, by `name` or, if they are equally long, by index; None if neither is possible."""
    by_name = [_by_name(entries) for entries in (old, new)]
    if by_name[0] is not None and by_name[1] is not None:
        return by_name[0], by_name[1]
    if len(old) == len(new):
        return dict(enumerate(old)), dict(enumerate(new))
    return None


def same(left: Any, right: Any, path: str) -> bool:
    """Whether two values are equal for the API server."""
    if left == right and isinstance(left, bool) == isinstance(right, bool):
        return True
    if not QUANTITIES & set(re.split(r"[.\[]", path)) and not path.endswith("storage"):
        return False
    amounts = [_amount(left), _amount(right)]
    return amounts[0] is not None and amounts[0] == amounts[1]


def join(path: str, key: Any) -> str:
    """The path of a key; a key with dots is put in brackets."""
    text = str(key)
    return f"{path}[{text}]" if "." in text else f"{path}.{text}".lstrip(".")


def _by_name(entries: list[Any]) -> dict[str, Any] | None:
    if not all(isinstance(e, dict) and isinstance(e.get("name"), str) for e in entries):
        return None
    by_name = {entry["name"]: entry for entry in entries}
    return by_name if len(by_name) == len(entries) else None


def _amount(value: Any) -> Decimal | None:
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return None
    try:
        return Decimal(parse_quantity(str(value)))
    except ValueError:
        return None


def _short(value: Any) -> str:
    if value is None:
        return ABSENT
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def _changed_lines(old: str, new: str) -> str:
    """The lines in which two texts of several lines differ, as `-old`, `+new`; "" for texts of one line."""
    if "\n" not in old.strip() and "\n" not in new.strip():
        return ""
    lines = [
        _short(f"{line[0]}{line[1:].strip()}")
        for line in difflib.unified_diff(old.splitlines(), new.splitlines(), n=0, lineterm="")
        if line[:1] in "+-" and not line.startswith(("+++", "---"))
    ]
    more = f" and {len(lines) - LINES} more" if len(lines) > LINES else ""
    return "lines " + ", ".join(lines[:LINES]) + more
