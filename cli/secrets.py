"""`isa secrets`: which credentials exist, never what they are."""

from __future__ import annotations

import click

from cli import options


@click.command()
@options.environment
@options.as_json
def secrets(environment: str, as_json: bool) -> None:
    """List the Secrets that the platform needs and the keys that are still missing. Prints no values."""
    from cli.main import emit
    from cli.tables import console, table
    from components import COMPONENTS
    from config.loading import load
    from operations.plan import missing_secrets
    from operations.platform import Platform

    platform = Platform.open(load(environment))
    missing = set(missing_secrets(platform))
    rows = [
        {
            "component": name,
            "secret": spec.name,
            "key": key,
            "exists": (spec.name, key) not in missing,
        }
        for name in platform.releases.components()
        for spec in COMPONENTS[name].secrets
        for key in spec.keys
    ]
    if as_json:
        emit({"namespace": platform.settings.kubernetes.namespace, "secrets": rows})
        return
    lines = [
        (r["component"], r["secret"], r["key"], "ok" if r["exists"] else "made by deploy")
        for r in rows
    ]
    console().print(table("Credentials", ("component", "Secret", "key", "state"), lines))
