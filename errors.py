"""The error taxonomy of the whole project: may it be tried again, or must somebody act first?

Every layer wraps what its client libraries raise in one of these, with the cause chained, so that retry
policies, exit codes and reports need to know these classes only. The split follows kopf's
`TemporaryError`/`PermanentError` (https://docs.kopf.dev/en/stable/errors/).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class IsaError(Exception):
    """Base of every error that this project raises on purpose.

    Args:
        message: in words of our own, which name things and never quote what they hold.
        said: the words of an engine or a tool, which may quote a row: they end every message, and what is kept in
            plain text leaves them out.

    Attributes:
        plain: the message without what was said.
        said: empty where nobody said anything.
    """

    def __init__(self, message: str = "", *, said: str = "") -> None:
        super().__init__(f"{message}: {said}" if said else message)
        self.plain, self.said = message, said


class TemporaryError(IsaError):
    """The same call may succeed later, with nothing changed by hand (API server away, slot taken).

    Args:
        message: what failed, where, and what is being waited for.
        delay: seconds to wait before the next try.
        said: the words of an engine or a tool.
    """

    def __init__(self, message: str, *, delay: float = 5.0, said: str = "") -> None:
        super().__init__(message, said=said)
        self.delay = delay


class PermanentError(IsaError):
    """Trying again changes nothing: somebody has to change an input or a state first."""


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong in an input.

    Attributes:
        where: file, and key inside it (`production.yaml: storage.nfs.server`).
        message: what is wrong with it.
        hint: what to do, or where the right value can be read.
    """

    where: str
    message: str
    hint: str = ""

    def __str__(self) -> str:
        return f"{self.where}: {self.message}" + (f" ({self.hint})" if self.hint else "")


class ConfigurationError(PermanentError):
    """The input is wrong; nothing has been changed yet. The command line exits with 2.

    Args:
        faults: all that were found, so that one report shows everything at once.
    """

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.faults = tuple(faults)
        super().__init__("; ".join(str(fault) for fault in self.faults))
