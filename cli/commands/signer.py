"""`isa backup signer` and `isa verify signer`: print the public key of a worker."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from cli.commands import options
from cli.commands.verbs import Verbs

if TYPE_CHECKING:
    from operations.environment.environment import Environment


def add_signer(command: Verbs, read_key: Callable[[Environment], str]) -> None:
    """Add the command `signer`.

    Args:
        command: whose first word it becomes.
        read_key: returns the public key in hexadecimal; its docstring is the help text.
    """

    def signer(environment: str, as_json: bool) -> None:
        from cli.printing.output import emit, say
        from config.loading import load
        from operations.documents.environment import Signer
        from operations.environment.environment import Environment

        key = read_key(Environment(load(environment)).open_store())
        if as_json:
            emit(Signer(signer=key))
        else:
            say(key)

    signer.__doc__ = read_key.__doc__
    document = options.prints("operations.documents.environment:Signer")
    command.command("signer")(options.environment(document(signer)))
