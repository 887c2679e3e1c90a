"""Neo4j Community from Maven Central: its jars, pinned by their hashes, and how to run server and admin tool with them.

`neo4j-jars.lock` has path and SHA-256 of every jar. Made anew, for another version, with Maven: dependencies
`org.neo4j:neo4j` and `org.neo4j.app:neo4j-server`, then `mvn dependency:copy-dependencies -DincludeScope=runtime
-Dmdep.useRepositoryLayout=true`, and `sha256sum` of each.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

from deployments.sandbox.binaries import say
from deployments.sandbox.paths import cache_dir, locked, write_atomic
from errors import ConfigurationError, Fault, PermanentError, TemporaryError

LOCK = Path(__file__).with_name("neo4j-jars.lock")
REPOSITORY_VARIABLE = "ISA_MAVEN_REPOSITORY"  # where Maven Central is reached by a mirror
CENTRAL = "https://repo1.maven.org/maven2"
JAVA_VERSIONS = (
    17,
    21,
)  # https://neo4j.com/docs/operations-manual/5/installation/requirements/#deployment-requirements-java
DOWNLOADS, TRIES = 8, 4
SERVER = "org.neo4j.server.CommunityEntryPoint"
ADMIN = "org.neo4j.server.startup.Neo4jAdminCommand"
# What a sandbox needs: 5-7 s to the first query and 280 MB, measured with 5.26.30.
MEMORY = ("-Xms64m", "-Xmx192m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto")
MODULES = ("--add-opens=java.base/java.nio=ALL-UNNAMED", "--add-opens=java.base/java.io=ALL-UNNAMED",
           "--add-opens=java.base/sun.nio.ch=ALL-UNNAMED", "-Dio.netty.tryReflectionSetAccessible=true")  # fmt: skip


def version() -> str:
    """The pinned version."""
    found = re.search(r"org/neo4j/neo4j/([^/]+)/", LOCK.read_text())
    assert found, LOCK
    return found[1]


def ensure(tell: Callable[[str], None] = say) -> Path:
    """Make sure that all jars are there; those that an interrupted download left are kept.

    Args:
        tell: gets a line of progress every few seconds.

    Returns:
        Their directory.

    Raises:
        TemporaryError: the repository did not answer.
        PermanentError: a jar is not the one that was pinned.
    """
    kept = cache_dir() / "neo4j" / version()
    with locked(cache_dir() / "neo4j.lock"):
        if kept.exists():
            return kept
        partial = kept.with_name(f"{version()}.partial")
        partial.mkdir(parents=True, exist_ok=True)
        entries = [line.split() for line in LOCK.read_text().splitlines()]
        with (
            httpx.Client(follow_redirects=True, timeout=60) as client,
            ThreadPoolExecutor(DOWNLOADS) as pool,
        ):
            futures = [pool.submit(_download, client, partial, p, digest) for p, digest in entries]
            told = time.monotonic()
            for done, future in enumerate(futures, 1):
                future.result()
                if time.monotonic() - told > 3 or done == len(futures):
                    tell(f"Neo4j {version()}: {done} of {len(futures)} jars")
                    told = time.monotonic()
        partial.rename(kept)
    return kept


def java() -> Path:
    """A Java that Neo4j runs on: JAVA_HOME's, or the PATH's.

    Raises:
        ConfigurationError: there is none of a fitting version.
    """
    home = os.environ.get("JAVA_HOME")
    candidates = [f"{home}/bin/java" if home else None, shutil.which("java")]
    candidates += [str(path) for path in sorted(Path("/usr/lib/jvm").glob("*/bin/java"))]
    for candidate in filter(None, candidates):
        try:
            done = subprocess.run(
                [candidate, "-version"], capture_output=True, text=True, timeout=20, check=False
            )
        except OSError:
            continue
        found = re.search(r'version "(\d+)', done.stderr)
        if found and int(found[1]) in JAVA_VERSIONS:
            return Path(candidate)
    raise ConfigurationError(
        [Fault("this machine", "has no Java 17 or 21, which Neo4j needs", "apt-get install openjdk-17-jre-headless")]
    )  # fmt: skip


def write_config(home: Path, data: Path, address: str) -> None:
    """Write neo4j.conf: small, quick to start and stop, reachable at one address."""
    settings = {
        "server.directories.data": data,
        "server.directories.logs": home / "logs",
        "server.bolt.listen_address": f"{address}:7687",
        "server.bolt.advertised_address": f"{address}:7687",
        "server.http.listen_address": f"{address}:7474",
        "server.http.advertised_address": f"{address}:7474",
        "server.https.enabled": "false",
        "server.memory.pagecache.size": "8m",
        "dbms.usage_report.enabled": "false",
        "db.tx_log.preallocate": "false",
        "db.tx_log.rotation.size": "1m",
        # stops in 2 s instead of 7-12
        "internal.dbms.bolt.netty_server_shutdown_quiet_period": "0",
    }
    text = "".join(f"{key}={value}\n" for key, value in settings.items())
    write_atomic(home / "conf" / "neo4j.conf", text)


def server_argv(home: Path) -> tuple[str, ...]:
    """Command line of the server."""
    return _argv(home, "server", SERVER, [f"--home-dir={home}", f"--config-dir={home / 'conf'}"])


def admin(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run neo4j-admin; its arguments go through a file, since a password is among them."""
    environ = {**os.environ, "NEO4J_HOME": str(home), "NEO4J_CONF": str(home / "conf")}
    argv = _argv(home, f"admin-{os.getpid()}", ADMIN, words)
    try:
        return subprocess.run(argv, env=environ, capture_output=True, text=True, check=False)
    finally:
        Path(argv[-1].removeprefix("@")).unlink()


def set_initial_password(home: Path, password: str) -> None:
    """Set the first password, before the first start.

    Raises:
        PermanentError: neo4j-admin refused; with its words.
    """
    done = admin(home, "dbms", "set-initial-password", password)
    if done.returncode != 0:
        words = (done.stdout + done.stderr).replace(password, "***").strip()[-500:]
        raise PermanentError(f"neo4j-admin dbms set-initial-password failed: {words}")


def _argv(home: Path, name: str, main: str, words: Sequence[str]) -> tuple[str, ...]:
    """Java with everything in an argument file (java(1), "@argfiles"): the class path alone would fill a screen."""
    arguments = [*MEMORY, *MODULES, "-cp", f"{ensure()}/*", main, *words]
    file = home / f"{name}.args"
    write_atomic(file, "\n".join(f'"{a}"' for a in arguments) + "\n")
    return (str(java()), f"@{file}")


def _download(client: httpx.Client, directory: Path, path: str, digest: str) -> None:
    file = directory / Path(path).name
    if file.exists() and _sha256(file) == digest:
        return
    url = f"{os.environ.get(REPOSITORY_VARIABLE, CENTRAL).rstrip('/')}/{path}"
    fresh = file.with_suffix(".part")
    for attempt in range(1, TRIES + 1):
        try:
            with client.stream("GET", url) as answer, fresh.open("wb") as target:
                answer.raise_for_status()
                for chunk in answer.iter_bytes():
                    target.write(chunk)
            break
        except httpx.HTTPError as exc:
            if attempt == TRIES:
                raise TemporaryError(
                    f"could not download {url}: {exc or type(exc).__name__}"
                ) from exc
            time.sleep(attempt)
    if _sha256(fresh) != digest:
        raise PermanentError(f"{url} is not the file that {LOCK.name} pins")
    fresh.rename(file)


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


if __name__ == "__main__":
    ensure()
