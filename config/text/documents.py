"""Reads and writes YAML so that helm, helmfile and Kubernetes see what the author of a file sees.

YAML 1.1 has dates, base-60 numbers (`1:30` is 90) and allows a key twice. helm and Kubernetes read the first two as
texts, and helmfile refuses the third. Output is JSON, which is YAML in which a text cannot be read as anything else:
PyYAML leaves `2025e3` bare, and helm reads that as a number (https://github.com/yaml/pyyaml/issues/173).
"""

from __future__ import annotations

import json
import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from errors import ConfigurationError, Fault

_TAG = "tag:yaml.org,2002:"
_DROPPED = {f"{_TAG}{name}" for name in ("timestamp", "value", "int", "float")}
# As in YAML 1.1, without base 60, infinity and "not a number", which JSON cannot say.
_INT = re.compile(r"[-+]?(?:0b[01_]+|0x[0-9a-fA-F_]+|0[0-7_]*|[1-9][0-9_]*)$")
_FLOAT = re.compile(r"[-+]?(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+][0-9]+)?$")

# Characters that JSON may have bare and YAML may not, or takes for the end of a line.
_NOT_YAML = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]")


class Loader(yaml.SafeLoader):
    """Loads plain data, and records each key that a map has twice."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self.twice: list[tuple[str, int]] = []

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Build a map; the keys are compared before `<<` merges those of another map."""
        names: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in names:
                    self.twice.append((key.value, key.start_mark.line + 1))
                names.add(key.value)
        return super().construct_mapping(node, deep)


class FastLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Loads YAML written by a program: with the C library, without a check for duplicate keys."""


for _loader in (Loader, FastLoader):
    _loader.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in entries if tag not in _DROPPED]
        for first, entries in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    _loader.add_implicit_resolver(f"{_TAG}float", _FLOAT, list("-+0123456789."))
    _loader.add_implicit_resolver(f"{_TAG}int", _INT, list("-+0123456789"))


def parse(text: str, where: str) -> tuple[list[Any], list[Fault]]:
    """Read a YAML stream.

    Args:
        text: zero or more documents.
        where: file or variable, for the faults.

    Returns:
        The documents, and a fault for each key that stands twice in a map.

    Raises:
        yaml.YAMLError: it is not YAML.
    """
    loader = Loader(text)
    documents = []
    try:
        while loader.check_data():  # type: ignore[no-untyped-call]
            documents.append(loader.get_data())
    except (ValueError, RecursionError) as exc:  # such as a number that its constructor refuses
        raise yaml.YAMLError(str(exc)) from exc
    finally:
        loader.dispose()
    return documents, [
        Fault(where, f"key {name!r} is defined twice, again in line {line}", "keep one of them")
        for name, line in loader.twice
    ]


def read(path: Path, where: str = "") -> tuple[list[Any], list[Fault]]:
    """Read a file of YAML documents, as UTF-8 whatever the locale is.

    Args:
        path: the file.
        where: its name in faults; the path by default.

    Raises:
        ConfigurationError: it does not exist, or is not UTF-8 or not YAML.
    """
    where = where or str(path)
    try:
        return parse(path.read_text(encoding="utf-8"), where)
    except UnicodeDecodeError as exc:
        message = f"is not UTF-8: byte {exc.object[exc.start]:#04x} at offset {exc.start}"
        raise ConfigurationError([Fault(where, message, "save the file as UTF-8")]) from exc
    except (OSError, yaml.YAMLError) as exc:
        raise ConfigurationError([Fault(where, f"cannot be read as YAML: {exc}")]) from exc


def dump(document: Any) -> str:
    """Return one document as YAML that every reader reads alike: a text stays a text.

    Raises:
        ValueError: it holds a value that JSON cannot express, such as infinity or a date.
    """
    try:
        text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)
    except TypeError as exc:
        raise ValueError(str(exc)) from exc
    return _NOT_YAML.sub(lambda found: f"\\u{ord(found[0]):04x}", text) + "\n"
