"""`isa retention`: what may be removed from the bucket, and its removal."""

from __future__ import annotations

import click

from cli import options


@click.command()
@click.argument("components", nargs=-1, metavar="[COMPONENT]...")
@options.environment
@options.as_json
@click.option("--apply", "apply", is_flag=True, help="Remove it; otherwise it is only shown.")
def retention(components: tuple[str, ...], environment: str, as_json: bool, apply: bool) -> None:
    """Show which backup sets and leftovers may go, by the rules of the settings; with --apply remove them."""
    from cli.main import emit
    from cli.tables import console, table
    from config.loading import load
    from operations.backup import Vault
    from operations.retention import apply_retention, plan_retention
    from operations.transfer import human

    vault = Vault.open(load(environment))
    plan = plan_retention(vault, components)
    held = apply_retention(vault, plan) if apply else {}
    if as_json:
        emit(plan.as_json(applied=apply, held=held))
        return
    rows = [
        (
            v.manifest.component,
            v.manifest.id,
            human(v.manifest.stored_size),
            "keep"
            if v.kept
            else "held"
            if v.manifest.id in held
            else "removed"
            if apply
            else "may go",
            "; ".join(v.kept) or held.get(v.manifest.id, ""),
        )
        for v in plan.verdicts
    ]
    out = console()
    out.print(table("Retention", ("component", "id", "stored", "verdict", "why"), rows))
    waste = plan.waste
    words = f"{len(waste.objects)} objects without a set ({human(waste.size)}), {len(waste.uploads)} unended uploads"
    out.print(f"{words}{' removed' if apply else ''}", highlight=False)
    if not apply and (plan.going or waste.objects or waste.uploads):
        out.print("Nothing was removed: --apply does it.", highlight=False)
