"""Reads and writes the configuration in EMQX's data export: the part of HOCON that EMQX itself writes.

That part (hocon_pp.erl in emqx/hocon, called by emqx_mgmt_data_backup.erl) has objects, lists, strings and bare words.
Includes, substitutions, paths as keys and duplicate keys are refused, because EMQX would expand them. Strings are not
interpreted; they are written as they were read. https://github.com/lightbend/config/blob/main/HOCON.md
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
DEPTH = 64  # limit of nesting; EMQX's own configurations are far flatter
KEY = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")  # is_quote_key/1: all other keys are quoted


@dataclass(frozen=True)
class Scalar:
    """A string, a number or a word, exactly as written in the file."""

    source: str

    @property
    def text(self) -> str:
        """The value without quotes."""
        return self.source.strip('"')


Value = Scalar | list["Value"] | dict[str, "Value"]
Tree = dict[str, Value]
FALSE, TRUE = Scalar("false"), Scalar("true")


class UnknownForm(PermanentError):
    """A syntax that EMQX does not write."""


def parse(source: str) -> Tree:
    """Read a configuration.

    Raises:
        UnknownForm: it has a syntax that EMQX does not write.
    """
    reader = _Reader(source)
    return reader.fields(end="")


def render(tree: Tree) -> str:
    """Write a configuration, with one line for each top-level key."""
    return "".join(f"{key} = {_written(value)}\n" for key, value in tree.items())


def _written(value: Value) -> str:
    if isinstance(value, Scalar):
        return value.source
    if isinstance(value, list):
        return f"[{', '.join(map(_written, value))}]"
    fields = (
        f"{json.dumps(key, ensure_ascii=False)}: {_written(item)}" for key, item in value.items()
    )
    return f"{{{', '.join(fields)}}}"


class _Reader:
    def __init__(self, source: str) -> None:
        self._tokens = list(_tokens(source))
        self._next = self._depth = 0

    def fields(self, end: str) -> Tree:
        """The fields of an object, up to its end token."""
        result: Tree = {}
        while (token := self._take()) != end:
            if token == ",":
                continue
            key = self._key(token)
            if key in result:
                raise UnknownForm("a key appears twice in the configuration")
            result[key] = self._value(self._take(), opened=True)
        return result

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
        if opened:  # after a key
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
        match = TOKEN.match(source, position)
        if match is None:
            raise UnknownForm("the configuration has a character that EMQX does not write")
        if match.lastgroup != "blank":
            yield match[0]
        position = match.end()
