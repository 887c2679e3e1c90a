"""Finds the engines' own client programs."""

from __future__ import annotations

import os
from collections.abc import Mapping

from cluster.command import Command
from components.access import Access
from config.process_environment import program_environ


def find_program(
    access: Access, name: str, hint: str, environ: Mapping[str, str] | None = None
) -> Command:
    """A program of the directories of `backup.programs`, else of the PATH.

    Args:
        access: has the settings.
        name: of the program.
        hint: what to install if it is missing.
        environ: the environment of its processes, in addition to what every program needs.

    Raises:
        PermanentError: the program does not exist.
    """
    directories = [str(directory) for directory in access.settings.backup.programs]
    path = os.pathsep.join([*directories, os.environ.get("PATH", "")])
    return Command(
        name,
        environ={**program_environ(), **(environ or {}), "PATH": path},
        install_hint=f"{hint}, or name its directory in backup.programs",
    )
