"""The error taxonomy of the project: can the call be repeated, or does someone have to act first?

Every layer wraps the exceptions of its client libraries in one of these classes, with the cause chained, so that retry
policies, exit codes and reports depend on these classes only. The split follows kopf's
`TemporaryError`/`PermanentError` (https://docs.kopf.dev/en/stable/errors/).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar


class IsaError(Exception):
    """Base of every error that this project raises on purpose.

    Args:
        message: in isa's own words, which name objects and never quote their contents.
        said: message of an engine or a tool, which may quote a row. It is appended to the text for people, and left out
            of what is stored in plain text.

    Attributes:
        plain: the message without `said`.
        said: empty if no engine or tool gave a message.
    """

    def __init__(self, message: str = "", *, said: str = "") -> None:
        super().__init__(f"{message}: {said}" if said else message)
        self.plain, self.said = message, said


class TemporaryError(IsaError):
    """The same call may succeed later, with nothing changed by hand (API server down, slot taken).

    Args:
        message: what failed, where, and what is being waited for.
        delay: seconds to wait before the next attempt.
        said: message of an engine or a tool.
    """

    def __init__(self, message: str, *, delay: float = 5.0, said: str = "") -> None:
        super().__init__(message, said=said)
        self.delay = delay


class PermanentError(IsaError):
    """Repeating the call cannot succeed: someone has to change an input or a state first."""


@dataclass(frozen=True)
class Fault:
    """One fault of an input.

    Attributes:
        where: file, and key inside it (`production.yaml: storage.nfs.server`).
        message: what is wrong with it.
        hint: what to do, or where to read the right value.
    """

    where: str
    message: str
    hint: str = ""

    def __str__(self) -> str:
        return f"{self.where}: {self.message}" + (f" ({self.hint})" if self.hint else "")


class InputError(PermanentError):
    """The input is wrong; nothing has been changed yet. The command line exits with 2.

    Args:
        faults: all that were found, so that one report shows everything at once.

    Attributes:
        title: what is wrong with the input as a whole, for the line above the faults.
    """

    title: ClassVar[str] = "The input is wrong"

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.faults = tuple(faults)
        super().__init__("; ".join(str(fault) for fault in self.faults))


class ConfigurationError(InputError):
    """Settings, declared files, variables or this machine lack something or contradict each other."""

    title = "The configuration is not complete"


class ArgumentError(InputError):
    """An argument of a command, or a parameter of its run, names something unknown or contradicts another."""

    title = "The arguments are wrong"
