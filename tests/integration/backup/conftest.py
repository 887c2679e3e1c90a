"""The platform with sample data, its environment, and one set of each component, made once."""

from __future__ import annotations

import io
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyrage
import pytest

from archive.backup.encryption import SUFFIX, decrypt
from archive.backup.manifest import Manifest
from archive.backup.reader import SetReader
from components.access import Access
from operations.backup.prerequisites import read_worker_key
from operations.environment.environment import Environment
from sandbox import seed
from sandbox.cluster import Sandbox
from sandbox.site import keys
from tests.contract import checked
from tests.damage import Forger

from ..accounts import environ_of, log_in
from ..engines.live import Live

ISA = str(Path(sys.executable).with_name("isa"))
SLOT = "test-night"
ENGINE_SECONDS = 30.0


def until(so: Callable[[], bool], what: str, seconds: float = 60.0, pause: float = 0.25) -> None:
    """Wait for something, with a limit; whoever is asked shares two cores with what is waited for."""
    deadline = time.monotonic() + seconds
    while not so():
        assert time.monotonic() < deadline, f"not so after {seconds:.0f} s: {what}"
        time.sleep(pause)


@contextmanager
def small_disk(directory: Path) -> Iterator[Path]:
    """A disk of 64 KiB."""
    directory.mkdir()
    options = "size=64k,mode=0700"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(directory)], check=True)
    try:
        yield directory
    finally:
        subprocess.run(["umount", str(directory)], check=True)


@dataclass
class Backups:
    """What the tests of backups work with.

    Attributes:
        sandbox: below it all.
        live: the engines, for killing.
        environment: as the product opens it.
        identity: private key of the verify pool.
        kubeconfig: of the service account isa-backup, with which all commands are run.
    """

    sandbox: Sandbox
    live: Live
    environment: Environment
    identity: str
    kubeconfig: Path

    @property
    def environ(self) -> dict[str, str]:
        """Of a backup worker's processes."""
        return environ_of(self.sandbox, self.kubeconfig)

    def isa(self, *arguments: str, code: int = 0, **environ: str) -> Any:
        """Run a command with `--json`; its exit status must be `code`."""
        done = subprocess.run(
            [ISA, *arguments, "--json"],
            env={**self.environ, **environ},
            capture_output=True,
            text=True,
            timeout=400,
            check=False,
        )
        assert done.returncode == code, done.stderr + done.stdout
        return checked(arguments, done.stdout, done.stderr)

    def manifest(self, component: str) -> Manifest:
        """The newest set of a component, with its digests."""
        found = self.environment.catalogue([component]).latest(component)
        assert found is not None, f"there is no set of {component}"
        _, earlier = self.environment.backup_chain(found.id)
        return SetReader(self.environment.store, found, self.identity, earlier).manifest

    def access(self) -> Access:
        """The way into the engines; to be closed."""
        return Access(self.environment.settings, self.environment.kube, ENGINE_SECONDS)

    def fetch(self, manifest: Manifest, name: str) -> bytes:
        """An artefact's plain bytes, by its plain name."""
        target = io.BytesIO()
        (artefact,) = (one for one in manifest.artefacts if one.name == name + SUFFIX)
        decrypt(self.environment.store, manifest.key(artefact), self.identity, target)
        return target.getvalue()


@dataclass
class Restorer:
    """Who restores.

    Attributes:
        backups: whose sets are restored.
        kubeconfig: of isa-restore.
        forger: of damaged sets.
    """

    backups: Backups
    kubeconfig: Path
    forger: Forger

    @property
    def environ(self) -> dict[str, str]:
        return environ_of(self.backups.sandbox, self.kubeconfig)

    def run(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [ISA, "restore", *arguments],
            env=self.environ,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=400,
            check=False,
        )

    def isa(self, *arguments: str, code: int = 0) -> Any:
        done = self.run(*arguments, "--local", "--yes", "--json")
        assert done.returncode == code, done.stderr + done.stdout
        return checked(["restore", *arguments], done.stdout, done.stderr)

    def ready(self, component: str) -> None:
        """The gate says so."""
        self.backups.live.until(component, lambda found: found.state == "ready", "ready")

    def take(self, component: str) -> Manifest:
        self.backups.isa("backup", component, "--local")
        return self.backups.manifest(component)

    def prove(self, manifest: Manifest) -> None:
        """Its proof passes."""
        command = [ISA, "verify", manifest.id, "--local"]
        subprocess.run(command, env=self.environ, check=True, timeout=300)


@contextmanager
def at_work(what: Callable[[threading.Event], None]) -> Iterator[None]:
    """Have a client at work; its failure is the test's."""
    stop, causes = threading.Event(), list[BaseException]()

    def run() -> None:
        try:
            what(stop)
        except BaseException as exc:
            causes.append(exc)

    client = threading.Thread(target=run)
    client.start()
    try:
        yield
    finally:
        stop.set()
        client.join()
    assert not causes, causes


@pytest.fixture(scope="session")
def backups(engines: Live, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backups]:
    """The platform, filled, and a backup worker with no more rights than its role has."""
    sandbox = engines.sandbox
    engines.await_state("ready")
    settings = engines.environment.settings
    with Access(settings, engines.environment.kube, ENGINE_SECONDS) as access:
        seed.seed_all(access, 1, 1)
    line = keys.identity_file(sandbox.directory, "verify").read_text().splitlines()[-1]
    assert pyrage.x25519.Identity.from_str(line)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in sandbox.settings_environ().items():
            patch.setenv(name, value)
        account = log_in(sandbox, tmp_path_factory.mktemp("accounts"), "isa-backup")
        assert account.kubeconfig is not None
        yield Backups(
            sandbox, engines, Environment(settings).open_store(), line, account.kubeconfig
        )


@pytest.fixture(scope="session")
def report(backups: Backups) -> Any:
    """What `isa backup` says of a backup of everything."""
    return backups.isa(
        "backup", "--local", "--slot", SLOT, code=1
    )  # Prefect is not up here: `platform` is partial


@pytest.fixture(scope="module")
def restorer(backups: Backups, report: Any, tmp_path_factory: pytest.TempPathFactory) -> Restorer:
    account = log_in(backups.sandbox, tmp_path_factory.mktemp("restore"), "isa-restore")
    assert account.kubeconfig is not None
    return Restorer(
        backups,
        account.kubeconfig,
        Forger(backups.environment.store, backups.identity, read_worker_key(backups.environment)),
    )
