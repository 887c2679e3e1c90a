"""Environments whose parts are handed in: what is not, is opened as ever, and ends a test that should not need it."""

from __future__ import annotations

from typing import Any

from operations.environment.environment import Environment


def environment_with(settings: Any, **parts: Any) -> Environment:
    """An environment with some of its parts.

    Args:
        settings: of it, or as much as is needed.
        parts: kube, store, cluster_uid, releases, graph … by their names.
    """
    made = Environment(settings)
    vars(made).update(parts)
    return made


def changed(environment: Environment, **parts: Any) -> Environment:
    """The same environment with other parts."""
    kept = {name: part for name, part in vars(environment).items() if name != "settings"}
    return environment_with(environment.settings, **{**kept, **parts})
