"""What every document is: a frozen dataclass that becomes JSON, is read back from it, and gives its JSON Schema.

A document is not checked when it is made: what an on-call asks for is printed, whatever word an engine gives. The tests
check what is printed against the schemas.
"""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, ClassVar, TypeVar

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import core_schema

D = TypeVar("D", bound="Document")
DIALECT = "https://json-schema.org/draft/2020-12/schema"
ATTRIBUTE = re.compile(r" {4}(?P<name>\w+): (?P<text>\S.*(?:\n {6,}\S.*)*)")


def one_of(*values: str) -> Any:
    """The values that a text has, for the schema."""
    return Field(json_schema_extra={"enum": [*values]})


@dataclass(frozen=True, kw_only=True)
class Document:
    """An object of JSON. Its fields are its keys; all of them are always there."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    def plain(self) -> dict[str, Any]:
        """As maps, lists and scalars: what `json.dumps` takes. Times are ISO 8601."""
        return {field.name: _plain(getattr(self, field.name)) for field in fields(self)}

    @classmethod
    def read(cls: type[D], document: Any) -> D:
        """The document of parsed JSON.

        Raises:
            ValueError: it is another one, or of another version of this project.
        """
        try:
            return TypeAdapter(cls).validate_python(document)
        except ValidationError as exc:
            first = exc.errors(include_url=False, include_input=False)[0]
            where = ".".join(map(str, first["loc"]))
            raise ValueError(f"{where}: {first['msg']}") from None

    @classmethod
    def schema(cls) -> dict[str, Any]:
        """Its JSON Schema, with the meaning of each key from the docstrings."""
        made = TypeAdapter(cls).json_schema(mode="serialization", schema_generator=_Schema)
        return {"$schema": DIALECT, **made}


def meanings(kind: type) -> dict[str, str]:
    """Name of each attribute → what its class's docstring says of it, in one line."""
    texts: dict[str, str] = {}
    for ancestor in reversed(kind.__mro__):
        docstring = inspect.cleandoc(ancestor.__dict__.get("__doc__") or "")
        text = docstring.partition("Attributes:\n")[2]
        for part in ATTRIBUTE.finditer(text):
            texts[part["name"]] = " ".join(part["text"].split()).removesuffix(".")
    return texts


class _Schema(GenerateJsonSchema):
    """Schemas of documents: every key is required, and has its meaning."""

    def dataclass_schema(self, schema: core_schema.DataclassSchema) -> dict[str, Any]:
        made = super().dataclass_schema(schema)
        kind = schema["cls"]
        texts = meanings(kind)
        made["description"] = inspect.cleandoc(kind.__doc__ or "").split("\n\n")[0]
        for name, key in made["properties"].items():
            key.pop("title", None)
            key.pop("default", None)
            key["description"] = texts[name]
        made["required"] = list(made["properties"])
        return made


def _plain(value: Any) -> Any:
    if isinstance(value, Document):
        return value.plain()
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    return value.isoformat() if isinstance(value, datetime) else value
