"""How `isa` reports that a command failed: a line for people, an object for `--json`; a traceback only with -v."""

from __future__ import annotations

import re
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from cli.printing.output import say
from config.text.printable import json_text, visible

VERBOSE = re.compile("-v+|--verbose")
ROOT = Path(__file__).resolve().parents[2]
LONGEST = 300  # characters of an exception's own message
DETAILS = "the same command with -v prints the traceback"


@dataclass(frozen=True)
class Reporter:
    """Prints failures on standard error, redacted.

    Attributes:
        as_json: as one JSON object.
        verbose: with the traceback of an unexpected exception.
    """

    as_json: bool
    verbose: bool

    @classmethod
    def of(cls, arguments: Sequence[str]) -> Reporter:
        """Create a reporter with the options of the command line, even if it could not be parsed."""
        return cls("--json" in arguments, verbosity(arguments) > 0)

    def failed(self, message: str, faults: Sequence[str] = ()) -> None:
        """Print an expected error.

        Args:
            message: what failed, where, why, what to do.
            faults: everything that is wrong with the input.
        """
        if self.as_json:
            self._document(message, faults)
            return
        say(f"isa: {message}", *(f"  • {fault}" for fault in faults), err=True)

    def misused(self, exc: click.ClickException) -> None:
        """Print what is wrong with a command line, and how to correct it."""
        # only the choices that click offers where an option is missing are on lines of their own
        message = " ".join(exc.format_message().split("\n\t"))
        if self.as_json:
            self.failed(message)
            return
        context = exc.ctx if isinstance(exc, click.UsageError) else None
        if context is not None:
            usage = context.get_usage().splitlines()
            asked = f"{context.command_path} {context.help_option_names[0]}"
            say(*usage, f"Try '{asked}' for help.", "", err=True)
        say(f"Error: {message}", err=True)

    def unexpected(self, exc: BaseException) -> None:
        """Print an unexpected exception: its kind, its place, and how to get its traceback."""
        message = describe(exc)
        if not self.verbose:
            self.failed(f"{message}; {DETAILS}")
        elif self.as_json:
            trace = "".join(traceback.format_exception(exc))
            self._document(message, traceback=trace)
        else:
            say(*"".join(traceback.format_exception(exc)).splitlines(), err=True)
            self.failed(message)

    def _document(self, message: str, faults: Sequence[str] = (), traceback: str = "") -> None:
        """Print `operations.documents.environment.Error`, without a module that could be what fails."""
        document = {"error": message, "faults": list(faults), "traceback": traceback}
        say(json_text(document), err=True)


def verbosity(arguments: Sequence[str]) -> int:
    """Count -v options, even if the command line could not be parsed."""
    given = (word for word in arguments if VERBOSE.fullmatch(word))
    return sum(1 if word == "--verbose" else word.count("v") for word in given)


def describe(exc: BaseException) -> str:
    """One line: kind, place and first words of an unexpected exception."""
    words = visible(str(exc).strip())
    if len(words) > LONGEST:
        words = f"{words[:LONGEST]}…"
    place = f"unexpected {type(exc).__name__} at {place_of(exc)}"
    return f"{place}: {words}" if words else place


def place_of(exc: BaseException) -> str:
    """`module:line` of the innermost frame of the project, or of any if none is."""
    frames = [(frame.f_globals, line) for frame, line in traceback.walk_tb(exc.__traceback__)]
    own = [(names, line) for names, line in frames if _is_own(str(names.get("__file__") or ""))]
    for names, line in reversed(own or frames):
        return f"{names.get('__name__')}:{line}"
    return "an unknown place"


def _is_own(file: str) -> bool:
    path = Path(file)
    return path.is_relative_to(ROOT) and "site-packages" not in path.parts
