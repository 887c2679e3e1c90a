"""The schema of helmfile.yaml: typed, unknown keys refused, all faults reported at once.

The file stays a document that helmfile itself accepts (https://helmfile.readthedocs.io/en/latest/#configuration).
isa reads a subset of that language. A key that helmfile would apply and isa would ignore is a fault, so that deploying
with helmfile does the same as `isa deploy`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    StrictBool,
    StrictInt,
    ValidationError,
    model_validator,
)

from config.text.documents import read
from config.values import DnsLabel, Section
from errors import ConfigurationError, Fault

Model = TypeVar("Model", bound=BaseModel)

DEFAULT_TIMEOUT_SECONDS = 300  # helm's and helmfile's own
DEFAULT_HISTORY = 10
# helm takes a range such as `~1.2` for the newest that fits: then a plan would mean another chart each day.
EXACT_VERSION = re.compile(r"v?\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?")


def _text(value: Any) -> Any:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        raise ValueError(f"is the number {value}: put it in quotes, otherwise 1.10 becomes 1.1")
    return value


def _version(value: str) -> str:
    if not EXACT_VERSION.fullmatch(value):
        raise ValueError(f"{value!r} is not an exact version such as 1.2.3: charts are pinned")
    return value


def _values_entry(value: Any) -> Any:
    if not isinstance(value, (str, dict)) or not value:
        raise ValueError("must be a file or a map of values")
    if isinstance(value, str) and value.endswith(".gotmpl"):
        raise ValueError("helmfile would render this file as a template, isa does not")
    return value


Text = Annotated[str, BeforeValidator(_text)]
Timeout = Annotated[StrictInt, Field(gt=0, description="seconds")]


class _Entry(Section):
    """A map in which a key without a value is absent, as in helmfile."""

    @model_validator(mode="before")
    @classmethod
    def _present(cls, data: Any) -> Any:
        if isinstance(data, dict):
            return {key: value for key, value in data.items() if value is not None}
        return data


class _Shared(_Entry):
    """Keys that a release has, or takes from `helmDefaults`."""

    timeout: Timeout | None = None
    wait: StrictBool | None = None
    historyMax: Annotated[StrictInt, Field(ge=1)] | None = None  # noqa: N815 (helmfile's name)
    # Obeyed by helmfile, and by a deploy only with this value:
    createNamespace: Literal[False] | None = None  # noqa: N815 (namespace.yaml makes it)
    atomic: Literal[False] | None = None  # a deploy takes back what it may, and no engine version
    cleanupOnFail: Literal[False] | None = None  # noqa: N815
    skipDeps: Literal[True] | None = None  # noqa: N815 (dependencies of charts are never built)


class Repository(_Entry):
    """A chart repository."""

    name: DnsLabel
    url: Text
    oci: StrictBool = False


class ReleaseEntry(_Shared):
    """A release as written."""

    name: DnsLabel
    namespace: DnsLabel
    chart: Text
    version: Annotated[Text, AfterValidator(_version)] | None = None
    labels: dict[str, Text] = Field(default_factory=dict)
    values: tuple[Annotated[Any, BeforeValidator(_values_entry)], ...] = ()
    needs: tuple[Text, ...] = ()


class Helmfile(_Entry):
    """The whole document."""

    repositories: tuple[Repository, ...] = ()
    helmDefaults: _Shared = _Shared()  # noqa: N815
    releases: tuple[ReleaseEntry, ...] = ()


@dataclass(frozen=True)
class Reading:
    """The valid parts of a helmfile, and its faults.

    Attributes:
        helmfile: the document; parts with faults are left out, so that the rest is checked all the same.
        faults: of its form.
        names: of all releases and repositories that are written, also of those with faults.
    """

    helmfile: Helmfile
    faults: list[Fault]
    names: frozenset[str]


def read_helmfile(path: Path) -> Reading:
    """Read and check the document's form.

    Args:
        path: helmfile.yaml.

    Raises:
        ConfigurationError: it cannot be read at all.
    """
    documents, faults = read(path)
    if len(documents) != 1 or not isinstance(documents[0], dict):
        raise ConfigurationError(
            [*faults, Fault(str(path), "must be one map", "see helmfile's documentation")]
        )
    document = documents[0]
    faults += [
        Fault(
            f"{path}: {location}",
            "has {{ }}, which helmfile would render and isa does not",
            "write the value itself, or put it into a values file",
        )
        for location in _templates(document, "")
    ]
    if not document.get("releases"):
        faults.append(Fault(f"{path}: releases", "is empty", "it declares nothing to deploy"))
    names = frozenset(str(entry.get("name")) for entry in _entries(document))
    try:
        return Reading(Helmfile.model_validate(document), faults, names)
    except ValidationError as exc:
        errors = exc.errors()
    faults += [_fault(path, document, error) for error in errors]
    return Reading(_usable(document, [error["loc"] for error in errors]), faults, names)


def _entries(document: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for key in ("repositories", "releases"):
        entries = document.get(key)
        yield from (e for e in entries if isinstance(e, dict)) if isinstance(entries, list) else ()


def _usable(document: Mapping[str, Any], faulty: list[tuple[int | str, ...]]) -> Helmfile:
    """The document without the keys that have faults, and without the entries that cannot do without them."""
    usable = deepcopy(dict(document))
    for loc in faulty:
        *above, key = [part for part in loc if not _is_type(part)][:4]
        value: Any = usable
        for part in above:
            inner = _at(value, part)
            if isinstance(value, dict) and isinstance(inner, list) and value is not usable:
                key = part  # of a list in an entry, all goes: the others would change their number
                break
            value = inner
        if isinstance(value, dict):
            value.pop(key, None)
    repositories = tuple(_valid(Repository, usable.get("repositories")))
    releases = tuple(_valid(ReleaseEntry, usable.get("releases")))
    (defaults,) = _valid(_Shared, [usable.get("helmDefaults") or {}]) or [_Shared()]
    return Helmfile.model_construct(
        repositories=repositories, helmDefaults=defaults, releases=releases
    )


def _at(value: Any, part: int | str) -> Any:
    """An entry of a map or list; None where there is none."""
    try:
        return value[part]
    except (KeyError, IndexError, TypeError):
        return None


def _valid(model: type[Model], entries: Any) -> list[Model]:
    models = []
    for entry in entries if isinstance(entries, list) else ():
        with suppress(ValidationError):
            models.append(model.model_validate(entry))
    return models


def _templates(value: Any, location: str) -> Iterator[str]:
    """Paths of the texts that helmfile takes for templates: it renders the fields of a release."""
    if isinstance(value, dict):
        for key, entry in value.items():
            yield from _templates(entry, f"{location}.{key}".lstrip("."))
    elif isinstance(value, list):
        for index, entry in enumerate(value):
            yield from _templates(entry, f"{location}[{index}]")
    elif isinstance(value, str) and "{{" in value:
        yield location


def _fault(path: Path, document: Mapping[str, Any], error: Any) -> Fault:
    parts = tuple(part for part in error["loc"] if not _is_type(part))
    location = f"{path}: {_written(document, parts)}"
    if error["type"] == "extra_forbidden":
        fields = list(_model_at(parts).model_fields)
        near = difflib.get_close_matches(str(parts[-1]), fields, 1)
        hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(sorted(fields))}"
        return Fault(location, "is not a key that isa supports", hint)
    if error["type"] == "missing":
        return Fault(location, "is missing")
    if error["type"] == "literal_error":
        message_text = f"must be {str(error['ctx']['expected']).lower()} or left out: isa supports no other value"
        return Fault(location, message_text)
    message = str(error["msg"]).removeprefix("Value error, ")
    return Fault(location, message[:1].lower() + message[1:])


def _is_type(part: int | str) -> bool:
    """Whether a part of pydantic's path names a validator, not a key."""
    return isinstance(part, str) and bool(re.search(r"[\[\]()]|^function-", part))


def _written(document: Mapping[str, Any], parts: tuple[int | str, ...]) -> str:
    """A path as people read it: a release, or a repository, by its name."""
    text = ""
    value: Any = document
    for part in parts:
        value = _at(value, part)
        if isinstance(part, int):
            lists = ("releases", "repositories")
            name = value.get("name") if isinstance(value, dict) and text in lists else None
            text += f"[{name or part}]"
        else:
            text += f".{part}" if text else part
    return text


def _model_at(parts: tuple[int | str, ...]) -> type[BaseModel]:
    """The model in which the last part of a path was looked for."""
    model: type[BaseModel] = Helmfile
    for part in parts[:-1]:
        if isinstance(part, str) and part in model.model_fields:
            kind = model.model_fields[part].annotation
            inner = [kind, *get_args(kind)]
            model = next(
                (k for k in inner if isinstance(k, type) and issubclass(k, Section)), model
            )
    return model
