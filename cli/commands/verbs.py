"""A command that acts by itself, and has further commands: `isa rebuild COMPONENT`, `isa rebuild undo COMPONENT`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click


class Verbs(click.Command):
    """A command whose first word may be one of its own commands.

    No component, backup or flow run has the name of one.

    Attributes:
        commands: its own commands by name.
    """

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.commands: dict[str, click.Command] = {}

    def command(self, name: str) -> Callable[[Callable[..., Any]], click.Command]:
        """Add a command; decorates its function.

        Args:
            name: its first word.
        """

        def add(function: Callable[..., Any]) -> click.Command:
            self.commands[name] = click.command(name)(function)
            return self.commands[name]

        return add

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,
    ) -> click.Context:
        """The context of the command that the first word names, or of this one."""
        inner = self.commands.get(args[0]) if args else None
        if inner is None:
            return super().make_context(info_name, args, parent, **extra)
        return inner.make_context(f"{info_name} {args[0]}", args[1:], parent, **extra)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, and its commands with the first sentence of their help."""
        super().format_options(ctx, formatter)
        with formatter.section("Commands"):
            formatter.write_dl(
                [
                    (
                        " ".join([name, *inner.collect_usage_pieces(ctx)[1:]]),
                        inner.get_short_help_str(formatter.width),
                    )
                    for name, inner in self.commands.items()
                ]
            )
