"""`isa secrets`: which credentials exist, never their values; and how to restore them after a disaster."""

from __future__ import annotations

import click

from cli.commands import options
from cli.commands.verbs import Verbs
from errors import ArgumentError, Fault


@click.command(cls=Verbs)
@options.environment
@options.prints("operations.documents.environment:Secrets")
def secrets(environment: str, as_json: bool) -> None:
    """List required Secrets and missing keys. Prints no values."""
    from cli.printing.output import emit
    from cli.printing.tables import console, table
    from components import COMPONENTS
    from config.loading import load
    from operations.deploy.plan import missing_secrets
    from operations.documents.environment import Credential, Secrets
    from operations.environment.environment import Environment

    env = Environment(load(environment)).open_releases()
    missing = set(missing_secrets(env))
    rows = [
        Credential(
            component=name,
            secret=spec.name,
            key=key,
            exists=(spec.name, key) not in missing,
        )
        for name in env.releases.components()
        for spec in COMPONENTS[name].secrets
        for key in spec.keys
    ]
    if as_json:
        namespace = env.settings.kubernetes.namespace
        emit(Secrets(namespace=namespace, secrets=tuple(rows)))
        return
    lines = [
        (row.component, row.secret, row.key, "ok" if row.exists else "made by deploy")
        for row in rows
    ]
    console().print(table("Credentials", ("component", "Secret", "key", "state"), lines))


@secrets.command("restore")
@click.argument("backup")
@options.environment
@options.prints("operations.documents.environment:RestoredSecrets")
def restore(backup: str, environment: str, as_json: bool) -> None:
    """Restore Secrets from BACKUP, a backup of `platform`, into a namespace without engines."""
    from archive.backup.manifest import IDENTITY, PLATFORM
    from cli.printing.output import emit
    from cli.printing.tables import console, table
    from config.loading import load
    from operations.documents.environment import RestoredSecrets
    from operations.environment.environment import Environment
    from operations.restore.credentials import reinstate

    if not IDENTITY.fullmatch(backup):
        hint = f"`isa backups {PLATFORM}` lists them"
        raise ArgumentError([Fault("BACKUP", f"{backup!r} is not a backup id", hint)])
    env = Environment(load(environment)).open_store()
    done = reinstate(env, env.verify_identity(), backup)
    if as_json:
        emit(RestoredSecrets(replaced=done.replaced, created=done.created))
        return
    rows = [*((name, "restored") for name in (*done.replaced, *done.created))]
    console().print(table("Credentials", ("Secret", "state"), rows))
