"""Reads and writes the configuration in EMQX's data export: HOCON in the form that EMQX itself writes.

That form (hocon_pp.erl in emqx/hocon, called by emqx_mgmt_data_backup.erl) is a small part of HOCON: objects, lists,
strings and bare words. Includes, substitutions, paths as keys and keys that stand twice are not in it, and are refused:
EMQX would read more out of them than stands there. Strings are not interpreted; they are written as they were read.
https://github.com/lightbend/config/blob/main/HOCON.md
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from errors import PermanentError

TOKEN = re.compile(
    r"""
      (?P<blank>\s+|(?:\#|//)[^\n]*)
    | (?P<text>\"{3}.*?\"{3}(?!\")|"(?:[^"\\\n]|\\.)*")
    | (?P<mark>[{}\[\]=:,])
    | (?P<word>[^\s"{}\[\]=:,\#$]+)
    """,
    re.VERBOSE | re.DOTALL,
)
DEPTH = 64  # far more than EMQX has
KEY = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")  # is_quote_key/1: all others are quoted


@dataclass(frozen=True)
class Scalar:
    """A string, a number, a word: as it stands in the file."""

    source: str

    @property
    def text(self) -> str:
        """Without the quotes of a simple string."""
        return self.source.strip('"')


Value = Scalar | list["Value"] | dict[str, "Value"]
Tree = dict[str, Value]
FALSE, TRUE = Scalar("false"), Scalar("true")


class UnknownForm(PermanentError):
    """It is not what EMQX writes."""


def parse(source: str) -> Tree:
    """Read a configuration.

    Raises:
        UnknownForm: it has what EMQX does not write.
    """
    reader = _Reader(source)
    return reader.fields(end="")


def render(tree: Tree) -> str:
    """Write a configuration, each key of the top level on a line."""
    return "".join(f"{key} = {_written(value)}\n" for key, value in tree.items())


def _written(value: Value) -> str:
    if isinstance(value, Scalar):
        return value.source
    if isinstance(value, list):
        return f"[{', '.join(map(_written, value))}]"
    fields = (
        f"{json.dumps(key, ensure_ascii=False)}: {_written(one)}" for key, one in value.items()
    )
    return f"{{{', '.join(fields)}}}"


class _Reader:
    def __init__(self, source: str) -> None:
        self._tokens = list(_tokens(source))
        self._next = self._depth = 0

    def fields(self, end: str) -> Tree:
        """Fields of an object up to its end."""
        found: Tree = {}
        while (token := self._take()) != end:
            if token == ",":
                continue
            key = self._key(token)
            if key in found:
                raise UnknownForm("a key appears twice in the configuration")
            found[key] = self._value(self._take(), opened=True)
        return found

    def _take(self) -> str:
        if self._next == len(self._tokens):
            self._next += 1
            return ""
        if self._next > len(self._tokens):
            raise UnknownForm("the configuration ends too early")
        self._next += 1
        return self._tokens[self._next - 1]

    def _key(self, token: str) -> str:
        if token[:1] == '"' and token[:3] != '"""':
            try:
                return str(json.loads(token))
            except ValueError as exc:
                raise UnknownForm("a key of the configuration has an unknown escape") from exc
        if not KEY.fullmatch(token):
            raise UnknownForm("the configuration has something else instead of a key")
        return token

    def _value(self, token: str, *, opened: bool = False) -> Value:
        if token == "{":
            with self._deeper():
                return self.fields(end="}")
        if opened:  # behind a key
            if token not in ("=", ":"):
                raise UnknownForm("a key of the configuration has no value")
            return self._value(self._take())
        if token == "[":
            with self._deeper():
                return list(self._items())
        if token in ("", "}", "]", "=", ":", ","):
            raise UnknownForm("the configuration lacks a value")
        return Scalar(token)

    def _items(self) -> Iterator[Value]:
        while (token := self._take()) != "]":
            if token != ",":
                yield self._value(token)

    @contextmanager
    def _deeper(self) -> Iterator[None]:
        self._depth += 1
        if self._depth > DEPTH:
            raise UnknownForm(f"the configuration is nested deeper than {DEPTH} levels")
        yield
        self._depth -= 1


def _tokens(source: str) -> Iterator[str]:
    position = 0
    while position < len(source):
        found = TOKEN.match(source, position)
        if found is None:
            raise UnknownForm("the configuration has a character that EMQX does not write")
        if found.lastgroup != "blank":
            yield found[0]
        position = found.end()
