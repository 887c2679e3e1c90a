"""`isa rebuild` and `isa approve`: rebuild a component, after someone has approved the plan."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from cli.commands import options
from cli.commands.verbs import Verbs
from cli.printing.live import LiveNodes, results
from cli.printing.output import emit, say

if TYPE_CHECKING:
    from operations.documents.runs import Rebuild
    from operations.environment.environment import Environment
    from operations.rebuild.plan import RebuildPlan


@click.command(cls=Verbs)
@click.argument("component")
@options.environment
@options.prints("operations.documents.runs:Rebuild", plan="operations.documents.plans:RebuildPlan")
@click.option(
    "--volumes", type=click.Choice(["new", "keep"]), default="new", show_default=True,
    help="`new` creates new volumes and retains the old ones; `keep` reuses the old ones.",
)  # fmt: skip
@click.option(
    "--restore",
    metavar="fresh|none|BACKUP",
    help="Data to restore: the final backup, nothing, or this backup. Default: fresh; with --volumes keep: none.",
)
@click.option(
    "--no-final-backup",
    is_flag=True,
    help="Take no backup first, because the engine does not answer.",
)
@click.option("--plan", "plan_only", is_flag=True, help="Print what would be done, and stop.")
@click.option("--approver", metavar="NAME", help="Approve the rebuild now, with your name.")
@click.option("--ticket", metavar="TICKET", help="Change ticket, or a reason, for --approver.")
@click.option("--local", is_flag=True, help="Run in this process, without a Prefect server.")
def rebuild(
    component: str,
    environment: str,
    as_json: bool,
    volumes: str,
    restore: str | None,
    no_final_backup: bool,
    plan_only: bool,
    approver: str | None,
    ticket: str | None,
    local: bool,
) -> None:
    """Rebuild COMPONENT from scratch. Needs an approval and a freshly verified backup.

    The old volumes are retained. Run the same command again to resume an interrupted rebuild. Exits 1 if the component
    was not rebuilt.
    """
    from config.loading import load
    from operations.environment.environment import Environment
    from operations.rebuild.plan import plan_rebuild
    from operations.state.rebuild_state import Policy

    if bool(approver) != bool(ticket):
        raise click.UsageError("--approver and --ticket go together")
    back = restore or ("fresh" if volumes == "new" else "none")
    policy = Policy(component, volumes, back, not no_final_backup)  # type: ignore[arg-type]
    policy.check()
    if approver:
        from tasks.server.runs import check_answer

        check_answer({"decision": "approve", "name": approver, "ticket": ticket})
    settings = load(environment)
    env = Environment(settings).open_releases().open_store()
    plan = plan_rebuild(env, policy)
    if plan_only and as_json:
        emit(plan.document())
        return
    if not as_json:
        _show(plan)
    if plan_only:
        return
    if local and not approver:
        raise click.UsageError("--local has nobody to ask: say --approver and --ticket")
    with LiveNodes(quiet=as_json) as nodes:
        if local:
            who = f"{approver} ({ticket})"
            report = nodes.here(
                lambda: _in_process(env, plan, who, nodes),
                lambda rows: _from_rows(component, rows),
            )
        else:
            report = _by_server(environment, policy, approver, ticket, nodes)
    if as_json:
        emit(report)
    else:
        say(report.message)
    if report.state != "completed":
        raise click.exceptions.Exit(1)


@rebuild.command("undo")
@click.argument("component")
@options.environment
@options.prints("operations.documents.plans:UndoneRebuild")
def undo(component: str, environment: str, as_json: bool) -> None:
    """Undo the last rebuild: bring the old volumes of COMPONENT back.

    Asks for the component's name. Data that was written since the rebuild is lost.
    """
    from cluster.lease import identity
    from config.loading import load
    from operations.documents.plans import UndoneRebuild
    from operations.environment.environment import Environment
    from operations.rebuild.reinstall import undo, undo_plan
    from operations.runner.context import RunContext
    from operations.state.rebuild_state import Policy

    Policy(component).check()  # a wrong name is told before anything is asked
    env = Environment(load(environment)).open_releases().open_store()
    plan = undo_plan(env, component)
    names = ", ".join(one.name for one in plan.volumes) or "none: they never left their place"
    say(f"volumes of {plan.rebuild}: {names}", err=True)
    words = f"Type {component} to put its old volumes back; what was written since is lost"
    click.prompt(words, type=click.Choice([component]), show_choices=False, err=True)
    returned = undo(
        env,
        RunContext(f"isa rebuild undo as {identity()}", tell=lambda note: say(note, err=True)),
        component,
    )
    if as_json:
        emit(UndoneRebuild(component=component, rebuild=plan.rebuild, returned_volumes=returned))
    else:
        say(f"{component} runs on its old volumes: {', '.join(returned) or 'they were in place'}")


@rebuild.command("purge")
@click.argument("component")
@options.environment
@options.prints("operations.documents.plans:PurgedVolumes")
def purge(component: str, environment: str, as_json: bool) -> None:
    """Delete old volumes of COMPONENT that are past rebuild.keep_volumes_days."""
    from cluster.lease import identity
    from config.loading import load
    from operations.documents.plans import PurgedVolumes
    from operations.environment.environment import Environment
    from operations.rebuild.reinstall import purge
    from operations.runner.context import RunContext
    from operations.state.rebuild_state import Policy

    Policy(component).check()  # a wrong name is told before anything is asked
    env = Environment(load(environment)).open_releases()
    context = RunContext(f"isa rebuild purge as {identity()}")
    purged = [one.name for one in purge(env, context, component)]
    if as_json:
        emit(PurgedVolumes(component=component, purged_volumes=tuple(purged)))
    else:
        say(f"purged: {', '.join(purged) or 'none'}")


@click.command()
@click.argument("run", metavar="FLOW_RUN")
@click.option("--name", required=True, help="Your name.")
@click.option("--ticket", required=True, help="Change ticket, or a reason.")
def approve(run: str, name: str, ticket: str) -> None:
    """Approve a rebuild. Exits 1 if it no longer waits for an answer."""
    from tasks.server.runs import answer

    answer(run, {"decision": "approve", "name": name, "ticket": ticket})
    say("approved")


@click.command()
@click.argument("run", metavar="FLOW_RUN")
@click.option("--name", required=True, help="Your name.")
@click.option("--ticket", required=True, help="Change ticket, or a reason.")
def refuse(run: str, name: str, ticket: str) -> None:
    """Refuse a rebuild; nothing is changed. Exits 1 if it no longer waits for an answer."""
    from tasks.server.runs import answer

    answer(run, {"decision": "refuse", "name": name, "ticket": ticket})
    say("refused; nothing is changed")


def _in_process(env: Environment, plan: RebuildPlan, who: str, nodes: LiveNodes) -> Rebuild:
    from cluster.lease import identity
    from operations.rebuild.rebuild import run_rebuild
    from operations.runner.context import RunContext
    from operations.runner.threads import threads

    with threads(1, env.settings.deploy.attempts) as start:
        report = run_rebuild(
            env,
            RunContext(
                f"isa rebuild --local as {identity()}, approved by {who}", publish=nodes.publish
            ),
            plan,
            start=start,
        )
    return report.document()


def _by_server(
    environment: str, policy: Any, approver: str | None, ticket: str | None, nodes: LiveNodes
) -> Rebuild:
    from dataclasses import asdict

    from tasks.server.runs import REBUILD, Run, answer

    def paused(run: Run) -> None:
        if approver:
            answer(str(run.id), {"decision": "approve", "name": approver, "ticket": ticket})
            return
        nodes.announce(f"it waits for an approval: {run.url}")
        nodes.announce(f"or: isa approve {run.id} --name NAME --ticket TICKET")

    parameters = {"environment": environment, **asdict(policy)}
    ended = nodes.follow(REBUILD, parameters, f"rebuild-{environment}", None, paused)
    return ended.document(_from_rows(policy.component, ended.rows))


def _from_rows(component: str, rows: list[dict[str, Any]]) -> Rebuild:
    from operations.documents.runs import Rebuild, RebuildStep

    return Rebuild(
        state="failed",
        seconds=0.0,
        message="",
        component=component,
        rebuild="",
        steps=results(rows, RebuildStep),
        backup="",
        retained_volumes=(),
    )


def _show(plan: RebuildPlan) -> None:
    from cli.printing.tables import console, table

    out = console(stderr=True)
    policy = plan.policy
    title = f"Rebuild of {policy.component}: volumes {policy.volumes}, restore {policy.restore} (plan {plan.digest})"
    volumes = "kept aside" if policy.volumes == "new" else "stays"
    rows = [
        (name, release or "not installed", "installed again")
        for name, release in plan.releases.items()
    ]
    rows += [(name, size, volumes) for name, size in plan.claims.items()]
    out.print(table(title, ("release or volume", "now", "what happens"), rows))
    out.print(f"last proof: {plan.proof or 'none'}", highlight=False)
    out.print(f"writers: {plan.writers}", highlight=False)
    for warning in plan.warnings:
        out.print(f"! {warning}", style="yellow", highlight=False)
    for reason in plan.blocked:
        out.print(f"✗ blocked by: {reason}", style="red", highlight=False)
