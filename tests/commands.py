"""The commands of `isa`, found as it finds them: a test of every command sees a new one by itself."""

from __future__ import annotations

from collections.abc import Iterator

import click

from cli.commands.verbs import Verbs


def commands_of(group: click.Group, prefix: str = "") -> Iterator[str]:
    """Their names, `sandbox up` and `rebuild undo` among them."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from commands_of(command, f"{prefix}{name} ")
        else:
            yield prefix + name
        if isinstance(command, Verbs):
            yield from (f"{prefix}{name} {verb}" for verb in command.commands)
