"""`isa sandbox up|down|status`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from cli.commands import options
from cli.printing.output import emit, say

if TYPE_CHECKING:
    from sandbox.documents import SandboxStatus

name_option = click.option(
    "--name", default="default", show_default=True, help="Name of the sandbox."
)

# Variables that a client of the Prefect server needs.
CLIENT = ("PREFECT_API_URL", "PREFECT_UI_URL", "PREFECT_API_AUTH_STRING")


@click.group()
def sandbox() -> None:
    """Run the embedded cluster on this machine."""


@sandbox.command()
@name_option
@options.prints("sandbox.documents:SandboxStatus")
@click.option("--nodes", type=click.IntRange(1, 100), help="Number of nodes  [default: 8].")
@click.option("--cpu", help="Cores of each new node  [default: 16].")
@click.option("--memory", help="Memory of each new node  [default: 64Gi].")
@click.option(
    "--ready-delay",
    type=(float, float),
    metavar="MIN MAX",
    help="Seconds until a pod becomes ready.",
)
@click.option(
    "--engines/--no-engines",
    default=None,
    help="Run engines in the pods, or simulate pods without engines  [default: engines].",
)
def up(
    name: str,
    as_json: bool,
    nodes: int | None,
    cpu: str | None,
    memory: str | None,
    ready_delay: tuple[float, float] | None,
    engines: bool | None,
) -> None:
    """Start the sandbox. The first time it builds its programs (10 to 30 minutes)."""
    from sandbox.cluster import Sandbox
    from sandbox.nodes.simulated import NodeSize

    options_given = {"count": nodes, "cpu": cpu, "memory": memory}
    sizes: dict[str, Any] = {
        key: value for key, value in options_given.items() if value is not None
    }
    size = NodeSize(**sizes) if sizes else None
    _print(Sandbox(name).up(size, ready_delay, engines=engines), as_json)


@sandbox.command()
@name_option
@click.option("--purge", is_flag=True, help="Delete the sandbox's data too.")
def down(name: str, purge: bool) -> None:
    """Stop the sandbox, and its Prefect server."""
    from sandbox.cluster import Sandbox
    from sandbox.control_room import ControlRoom

    sandbox = Sandbox(name)
    ControlRoom(sandbox).down(purge=purge)
    sandbox.down(purge=purge)


@sandbox.command()
@name_option
@options.prints("sandbox.documents:SandboxStatus")
def status(name: str, as_json: bool) -> None:
    """Show processes and addresses. Exits 1 if the cluster is not up."""
    from sandbox.cluster import Sandbox
    from sandbox.control_room import ControlRoom

    sandbox = Sandbox(name)
    document = sandbox.status()
    room = ControlRoom(sandbox).status()
    if room["processes"]:
        document["processes"] |= room.pop("processes")
        document |= room
    _print(document, as_json)
    if not document["up"]:
        raise click.exceptions.Exit(1)


@sandbox.command()
@name_option
@options.prints("sandbox.documents:Seed")
@click.option(
    "--size",
    type=click.IntRange(1, 1000),
    default=1,
    show_default=True,
    help="Amount of data, a factor.",
)
@click.option(
    "--seed", "number", default=1, show_default=True, help="The same seed gives the same data."
)
def seed(name: str, as_json: bool, size: int, number: int) -> None:
    """Fill all seven engines with sample data; idempotent."""
    from cluster.kube import Kube
    from components.access import Access
    from config.loading import load
    from sandbox.cluster import Sandbox
    from sandbox.documents import Seed, SeededEngine
    from sandbox.seed import seed_all

    settings = load("sandbox", environ=Sandbox(name).settings_environ())
    with Access(settings, Kube.connect(settings.kubernetes)) as access:
        engines = seed_all(access, size, number)
    if as_json:
        emit(Seed(seeded=tuple(SeededEngine(**vars(entry)) for entry in engines)))
        return
    for entry in engines:
        counts = ", ".join(f"{count} {kind}" for kind, count in entry.counts.items())
        say(f"{entry.component:<12} {entry.seconds:5.1f} s  {counts}")


@sandbox.command()
@name_option
def env(name: str) -> None:
    """Print the environment variables of this sandbox, for `eval "$(isa sandbox env)"`."""
    import shlex

    from sandbox.cluster import Sandbox
    from sandbox.control_room import ControlRoom

    sandbox = Sandbox(name)
    environ, room = sandbox.environ(), ControlRoom(sandbox)
    if room.status()["processes"]:
        environ |= {key: value for key, value in room.environ().items() if key in CLIENT}
    for key in sorted(environ):
        if key.startswith("ISA_") or key in ("PATH", "KUBECONFIG", *CLIENT):
            say(f"export {key}={shlex.quote(environ[key])}")


def _print(document: dict[str, Any], as_json: bool) -> None:
    if as_json:
        emit(_document(document))
        return
    say(f"sandbox {document['name']}: {'up' if document['up'] else 'not up'}")
    for part, pid in document["processes"].items():
        say(f"  {part:<24} pid {pid}")
    if "kubeconfig" in document:
        say(f"  kubeconfig               {document['kubeconfig']}")
        say(f"  object store             {document['object_store']['endpoint']}")
    for component, members in document.get("engines", {}).items():
        for member in members:
            address = f"{member['host']}:{member['port']}"
            kind = "" if member["real"] else "  (double)"
            say(f"  {component:<12} {member['member']:<28} {address:<22} {member['secret']}{kind}")
    if "prefect_ui" in document:
        say(f"  Prefect                  {document['prefect_ui']}")
        say(f"  its password             in {document['prefect_login_file']}")


def _document(status: dict[str, Any]) -> SandboxStatus:
    from sandbox.documents import EngineMember, ObjectStore, SandboxStatus

    store = status.get("object_store")
    engines = status.get("engines", {})
    return SandboxStatus(
        name=status["name"],
        up=status["up"],
        processes=status["processes"],
        kubeconfig=status.get("kubeconfig", ""),
        object_store=ObjectStore(**store) if store else None,
        age_identity_file=status.get("age_identity_file", ""),
        engines={
            name: tuple(EngineMember(**member) for member in members)
            for name, members in engines.items()
        },
        prefect_api=status.get("prefect_api", ""),
        prefect_ui=status.get("prefect_ui", ""),
        prefect_login_file=status.get("prefect_login_file", ""),
    )
