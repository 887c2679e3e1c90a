"""Writes docs/reference/settings.md from the models: `python -m config.reference > docs/reference/settings.md`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from config.loading import WHERE_TO_READ, variable
from config.models import Settings
from config.values import Image, Section

HEAD = """\
# Settings

Made by `python -m config.reference > docs/reference/settings.md`; change the models, not this file.

Each environment is one file, `config/environments/ENVIRONMENT.yaml`. The variable of a setting wins
over the file; maps and lists are written in it as JSON or YAML. **required** means that no default
exists: what the shipped files leave open are facts of the site, and all that are missing are
reported at once. Unknown keys are refused. No setting ever holds a secret.
"""
ROW = "| `{key}` | {type} | {default} | {meaning} | {variable} |"


def reference() -> str:
    """The whole document, as Markdown."""
    return HEAD + "".join(_section(Settings, "")).rstrip() + "\n"


def _section(model: type[BaseModel], prefix: str) -> Iterator[str]:
    """A table of a section's own keys, then its sections."""
    sections: list[tuple[str, type[BaseModel]]] = []
    rows: list[str] = []
    for name, field in model.model_fields.items():
        key, inner = prefix + name, _model(field.annotation)
        if inner is None or inner is Image:
            rows.append(_row(key, field))
        else:
            listed = field.annotation is not inner
            rows += [_row(key, field)] if listed else []
            sections.append((f"{key}[]." if listed else f"{key}.", inner))
    if rows:
        title = f"`{prefix.rstrip('.')}`" if prefix else "The file"
        head = "| key | type | default | meaning | variable |\n|---|---|---|---|---|\n"
        yield f"\n## {title}\n\n{' '.join((model.__doc__ or '').split())}\n\n{head}"
        yield "\n".join(rows) + "\n"
    for path, inner in sections:
        yield from _section(inner, path)


def _row(key: str, field: FieldInfo) -> str:
    hint = WHERE_TO_READ.get(key) or WHERE_TO_READ.get(key.split(".")[0])
    meaning = (field.description or "") + (f". Where to read it: {hint}" if hint else "")
    overridable = "." in key and "[]" not in key
    return ROW.format(
        key=key,
        type=_type(field.annotation).replace("|", "\\|"),
        default=_default(key, field),
        meaning=meaning.replace("|", "\\|"),
        variable=f"`{variable(key)}`" if overridable else "",
    )


def _default(key: str, field: FieldInfo) -> str:
    value = field.default
    *sections, name = key.split(".")
    if value is PydanticUndefined and sections[:1] == ["components"]:
        # the members of each component are a default of the section above
        value = getattr(getattr(Settings.model_fields["components"].default, sections[1]), name)
    if value is PydanticUndefined:
        return "**required**"
    if isinstance(value, Image):
        return f"`{value.reference}`"
    return "unset" if value in (None, "") else f"`{json.dumps(value, default=str)}`"


def _model(kind: Any) -> type[BaseModel] | None:
    """The model in a type such as `Model` or `tuple[Model, ...]`."""
    if isinstance(kind, type) and issubclass(kind, Section):
        return kind
    return next((found for part in get_args(kind) if (found := _model(part))), None)


def _type(kind: Any) -> str:
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _type(parts[0])
    if origin is Literal:
        return " or ".join(f"`{part}`" for part in parts)
    if origin in (Union, UnionType):
        return " or ".join(_type(part) for part in parts if part is not type(None))
    if origin is tuple:
        return f"list of {_type(parts[0])}"
    if origin is dict:
        return f"map of {_type(parts[1])}"
    if kind is Image:
        return "image"
    names = {str: "text", int: "integer", float: "number", Path: "path"}
    return names.get(kind, "map")


if __name__ == "__main__":
    print(reference(), end="")
