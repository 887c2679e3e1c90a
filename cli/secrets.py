"""`isa secrets`: which credentials exist, never what they are; and the way they come back after a disaster."""

from __future__ import annotations

import click

from cli import options
from errors import ConfigurationError, Fault


@click.command()
@options.environment
@options.as_json
@click.option(
    "--from",
    "backup",
    metavar="BACKUP",
    help="Restore Secrets from a backup of `platform`, into a namespace without engines.",
)
def secrets(environment: str, as_json: bool, backup: str | None) -> None:
    """List required Secrets and missing keys. Prints no values."""
    if backup is not None:
        _reinstate(environment, backup, as_json)
        return
    from cli.output import emit
    from cli.tables import console, table
    from components import COMPONENTS
    from config.loading import load
    from operations.deploy.plan import missing_secrets
    from operations.environment.environment import Environment

    env = Environment(load(environment)).open_releases()
    missing = set(missing_secrets(env))
    rows = [
        {
            "component": name,
            "secret": spec.name,
            "key": key,
            "exists": (spec.name, key) not in missing,
        }
        for name in env.releases.components()
        for spec in COMPONENTS[name].secrets
        for key in spec.keys
    ]
    if as_json:
        emit({"namespace": env.settings.kubernetes.namespace, "secrets": rows})
        return
    lines = [
        (r["component"], r["secret"], r["key"], "ok" if r["exists"] else "made by deploy")
        for r in rows
    ]
    console().print(table("Credentials", ("component", "Secret", "key", "state"), lines))


def _reinstate(environment: str, backup: str, as_json: bool) -> None:
    from archive.manifest import IDENTITY, PLATFORM
    from cli.output import emit
    from cli.tables import console, table
    from config.loading import load
    from operations.environment.environment import Environment
    from operations.restore.credentials import reinstate
    from operations.verify.proof import read_identity

    if not IDENTITY.fullmatch(backup):
        hint = f"`isa backups {PLATFORM}` lists them"
        raise ConfigurationError([Fault("--from", f"{backup!r} is no id of a backup", hint)])
    env = Environment(load(environment)).open_store()
    done = reinstate(env, read_identity(env), backup)
    if as_json:
        emit({"replaced": done.replaced, "created": done.created})
        return
    rows = [*((name, "restored") for name in (*done.replaced, *done.created))]
    console().print(table("Credentials", ("Secret", "state"), rows))
