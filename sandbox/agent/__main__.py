"""The agent as a process: `python -m sandbox.agent SANDBOX`."""

from __future__ import annotations

import sys

from sandbox.agent.addresses import AddressBook
from sandbox.agent.pod import Host
from sandbox.agent.watcher import watch
from sandbox.cluster import Sandbox
from sandbox.control_plane import CONTEXT


def main(name: str) -> None:
    """Run the pods of a sandbox until killed. Their processes keep running, and the next agent adopts them."""
    sandbox = Sandbox(name)
    directory = sandbox.engines
    watch(
        Host(
            kube=sandbox.kube(),
            kubeconfig=sandbox.kubeconfig,
            context=CONTEXT,
            book=AddressBook(directory / "addresses.json", sandbox.addresses.number),
            directory=directory,
            programs=sandbox.binary,
        )
    )


if __name__ == "__main__":
    main(sys.argv[1])
