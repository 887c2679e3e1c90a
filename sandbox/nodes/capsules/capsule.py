"""A node's walls: one process that holds network, mount, process, UTS, IPC and cgroup namespaces.

With its end everything in it ends: processes, mounts, links, rules. Only the cgroups' directories are left to remove.
All capsules of a sandbox share one cgroup of the processor, whose small share leaves the machine usable. It is below
the cgroup of the command that started them, so a limit on that command holds for every container too.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from errors import ConfigurationError, Fault, PermanentError, TemporaryError
from sandbox.machine.paths import write_atomic
from sandbox.machine.processes import Daemon

SCRIPT = Path(__file__).with_name("capsule.sh")
CGROUPS = Path("/sys/fs/cgroup")
CONTROLLERS = (
    "cpu",
    "cpuacct",
    "cpuset",
    "memory",
    "devices",
    "freezer",
    "blkio",
    "pids",
    "systemd",
    "unified",
)
# Controllers whose groups are below the starter's. Memory is not one: a command's memory group ends with the command.
INHERITED = ("cpu", "cpuacct")
OWN_GROUPS = Path("/proc/self/cgroup")
# Of the machine's processor, against 1024 of everything else: what is idle they get all the same.
CPU_SHARES = 64
# program → Debian package that brings it
PROGRAMS = {
    "ip": "iproute2",
    "nsenter": "util-linux",
    "openssl": "openssl",
    "unshare": "util-linux",
}
START_SECONDS = 60.0
END_SECONDS = 30.0
# Joins the capsule's cgroups, then its namespaces: nsenter -C alone leaves a process in the machine's cgroups.
JOIN = 'for group in $1; do echo $$ > "$group/cgroup.procs"; done; shift; '
START = JOIN + 'exec "$@"'
ENTER = JOIN + 'pid=$1; shift; exec nsenter -t "$pid" -m -n -p -u -i -C -- "$@"'


def check() -> None:
    """Make sure that this machine lets us make nodes.

    Raises:
        ConfigurationError: it does not; all of what is missing.
    """
    faults = []
    if os.geteuid() != 0:
        hint = "run as root, or use the sandbox without real nodes: isa sandbox up"
        faults.append(Fault("this user", "may make no nodes: they need root", hint))
    for program, package in PROGRAMS.items():
        if shutil.which(program) is None:
            faults.append(Fault("this machine", f"has no {program}", f"apt-get install {package}"))
    missing = [name for name in CONTROLLERS if not (CGROUPS / name / "cgroup.procs").exists()]
    if missing:
        hint = "boot with systemd.unified_cgroup_hierarchy=0, or use the sandbox without real nodes"
        problem = f"has no cgroup v1 controllers: {', '.join(missing)} (version 2 was never tried)"
        faults.append(Fault("this machine", problem, hint))
    if "overlay" not in Path("/proc/filesystems").read_text(encoding="ascii"):
        faults.append(
            Fault("this machine", "has no overlay file system", "load the module overlay")
        )
    if not Path("/proc/sys/net/bridge/bridge-nf-call-iptables").exists():
        problem = "has no br_netfilter, without which policies between pods of one node do nothing"
        faults.append(Fault("this machine", problem, "modprobe br_netfilter"))
    if faults:
        raise ConfigurationError(faults)


@dataclass(frozen=True)
class Capsule:
    """The walls of one node, or of the control plane.

    Attributes:
        name: host name inside.
        group: of the sandbox's cgroups; the node's own are below it.
        directory: its state.
        tools: Debian's programs that /usr gets in addition.
        memory_bytes: that all processes inside may use together.
    """

    name: str
    group: str
    directory: Path
    tools: Path
    memory_bytes: int = 3 << 30

    @property
    def pid(self) -> int:
        """Of its first process, as the machine numbers it.

        Raises:
            PermanentError: it is not up.
        """
        file = self.directory / "pid"
        if self._daemon.pid is None or not file.exists():
            raise PermanentError(f"node {self.name} is not up")
        return int(file.read_text(encoding="ascii"))

    @property
    def is_up(self) -> bool:
        """Whether its first process runs."""
        return self._daemon.pid is not None and (self.directory / "pid").exists()

    def up(self) -> None:
        """Make the namespaces unless they are there.

        Raises:
            TemporaryError: the first process ended, or mounts took too long; with its log.
        """
        if self.is_up:
            return
        self.directory.mkdir(parents=True, exist_ok=True)
        (self.directory / "pid").unlink(missing_ok=True)
        self._make_groups()
        words = [self.name, self.directory, self.tools]
        self._daemon.start(
            [
                "bash", "-c", START, "start", self._groups(),
                "unshare", "--net", "--mount", "--pid", "--fork", "--uts", "--ipc", "--cgroup", "--kill-child",
                "--propagation", "private", "bash", str(SCRIPT), *map(str, words),
            ]
        )  # fmt: skip
        deadline = time.monotonic() + START_SECONDS
        while not self.is_up:
            if self._daemon.pid is None or time.monotonic() > deadline:
                raise TemporaryError(f"node {self.name} did not start: {self._daemon.tail()}")
            time.sleep(0.02)

    def down(self) -> None:
        """End all processes inside, and remove the cgroups."""
        self._daemon.stop(grace=0.0)
        (self.directory / "pid").unlink(missing_ok=True)
        deadline = time.monotonic() + END_SECONDS
        for directory in self._directories.values():
            _remove_group(directory, deadline)
            with suppress(OSError):  # another node's are still there
                directory.parent.rmdir()

    def command(self, *argv: str) -> list[str]:
        """The command line that runs a program inside."""
        return ["bash", "-c", ENTER, "enter", self._groups(), str(self.pid), *argv]

    def network_command(self, *argv: str) -> list[str]:
        """The command line that runs a program of the machine in its network alone."""
        return ["nsenter", "-t", str(self.pid), "-n", "--", *argv]

    def daemon(self, program: str) -> Daemon:
        """One of its long-running programs."""
        return Daemon(program, self.directory / "run")

    def start(self, program: str, argv: Sequence[str], programs: Sequence[Path] = ()) -> None:
        """Start one of them unless it runs.

        Args:
            program: its name.
            argv: its command line.
            programs: directories of what it calls, before the usual ones.
        """
        path = os.pathsep.join([*map(str, programs), "/usr/sbin", "/usr/bin", "/sbin", "/bin"])
        self.daemon(program).start(self.command(*argv), {"PATH": path, "HOME": "/root"})

    @property
    def _daemon(self) -> Daemon:
        return Daemon("capsule", self.directory)

    @property
    def _directories(self) -> dict[str, Path]:
        """Controller → its cgroup: as it was made, or where it is about to be."""
        record = self.directory / "cgroups.json"
        if record.exists():
            made = json.loads(record.read_text(encoding="utf-8"))
            return {controller: Path(path) for controller, path in made.items()}
        text = OWN_GROUPS.read_text(encoding="utf-8")
        return {
            controller: parent_group(controller, text) / self.group / self.name
            for controller in CONTROLLERS
        }

    def _groups(self) -> str:
        return " ".join(map(str, self._directories.values()))

    def _make_groups(self) -> None:
        directories = self._directories
        made = {controller: str(path) for controller, path in directories.items()}
        write_atomic(self.directory / "cgroups.json", json.dumps(made))
        for controller, own in directories.items():
            shared = own.parent
            for directory in (shared, own):
                directory.mkdir(exist_ok=True)
                if controller == "cpuset":  # an empty one refuses processes
                    for name in ("cpuset.cpus", "cpuset.mems"):
                        (directory / name).write_text(
                            (directory.parent / name).read_text(encoding="utf-8"), encoding="utf-8"
                        )
            if controller == "cpu":
                (shared / "cpu.shares").write_text(str(CPU_SHARES), encoding="utf-8")
            if controller == "memory":
                (own / "memory.limit_in_bytes").write_text(str(self.memory_bytes), encoding="utf-8")


def parent_group(controller: str, text: str) -> Path:
    """Directory of the cgroup below which ours are made.

    Args:
        controller: of cgroup version 1.
        text: of /proc/self/cgroup: `NUMBER:CONTROLLERS:PATH` a line (cgroups(7)).
    """
    mount = CGROUPS / controller
    for line in text.splitlines() if controller in INHERITED else ():
        _, names, path = line.split(":", 2)
        # in a container the path may be the machine's, which is not to be seen there
        if controller in names.split(",") and (mount / path.lstrip("/")).is_dir():
            return mount / path.lstrip("/")
    return mount


def groups_left(group: str) -> list[Path]:
    """Cgroups of a sandbox, wherever they are."""
    walk = os.walk(CGROUPS)  # skips groups that end during the walk
    return [Path(parent) / group for parent, names, _ in walk if group in names]


def _remove_group(directory: Path, deadline: float) -> None:
    """Remove a cgroup and those below it, deepest first; a process that just ended holds its own for a moment."""
    if not directory.exists():
        return
    for child in [one for one in directory.iterdir() if one.is_dir()]:
        _remove_group(child, deadline)
    while True:
        try:
            directory.rmdir()
            return
        except FileNotFoundError:
            return
        except OSError as exc:
            if time.monotonic() > deadline:
                raise TemporaryError(f"cgroup {directory} is still in use: {exc}") from exc
            time.sleep(0.05)
