"""Neo4j Community from Maven Central: its jars, pinned by their hashes, and how to run server and admin tool with them.

`neo4j-jars.lock` has path and SHA-256 of every jar; `python -m sandbox.machine.neo4j_programs lock VERSION`
writes a new one with Maven. If Maven is installed, it also downloads the jars, so that its settings (mirrors, proxies,
credentials) apply. Otherwise they are downloaded from the repository by HTTP. The hashes are checked in both cases.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

from errors import ConfigurationError, Fault, IsaError, PermanentError, TemporaryError
from sandbox.machine.binaries import say
from sandbox.machine.paths import cache_dir, locked, write_atomic

LOCK = Path(__file__).with_name("neo4j-jars.lock")
REPOSITORY_VARIABLE = "ISA_MAVEN_REPOSITORY"  # address of a mirror of Maven Central
CENTRAL = "https://repo1.maven.org/maven2"
JAVA_VERSIONS = (
    17,
    21,
)  # https://neo4j.com/docs/operations-manual/5/installation/requirements/#deployment-requirements-java
JAVA_SECONDS = 20.0
DOWNLOADS, TRIES = 8, 4
MAVEN_COPY = "org.apache.maven.plugins:maven-dependency-plugin:2.8:copy-dependencies"
SERVER = "org.neo4j.server.CommunityEntryPoint"
ADMIN = "org.neo4j.server.startup.Neo4jAdminCommand"
# What a sandbox needs: 5-7 s to the first query and 280 MB, measured with 5.26.30.
MEMORY = ("-Xms64m", "-Xmx192m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto")
MODULES = ("--add-opens=java.base/java.nio=ALL-UNNAMED", "--add-opens=java.base/java.io=ALL-UNNAMED",
           "--add-opens=java.base/sun.nio.ch=ALL-UNNAMED", "-Dio.netty.tryReflectionSetAccessible=true")  # fmt: skip


def version() -> str:
    """The pinned version."""
    found = re.search(r"org/neo4j/neo4j/([^/]+)/", LOCK.read_text(encoding="utf-8"))
    assert found, LOCK
    return found[1]


def ensure(tell: Callable[[str], None] = say) -> Path:
    """Download missing jars. Jars of an interrupted download are kept.

    Args:
        tell: called with a line of progress every few seconds.

    Returns:
        Their directory.

    Raises:
        TemporaryError: the repository did not answer.
        PermanentError: a jar does not match its pinned hash.
    """
    kept = cache_dir() / "neo4j" / version()
    with locked(cache_dir() / "neo4j.lock"):
        if kept.exists():
            return kept
        partial = kept.with_name(f"{version()}.partial")
        partial.mkdir(parents=True, exist_ok=True)
        entries = [line.split() for line in LOCK.read_text(encoding="utf-8").splitlines()]
        maven = shutil.which("mvn")
        if maven and REPOSITORY_VARIABLE not in os.environ:
            tell(f"Neo4j {version()}: {len(entries)} jars with Maven (once; about a minute)")
            _copy_with_maven(maven, version(), partial)
            _check(partial, entries)
        else:
            _download_all(partial, entries, tell)
        partial.rename(kept)
    return kept


def lock(wanted: str) -> str:
    """Resolve a version of Neo4j with Maven.

    Returns:
        Text of the lock file: path in the repository and SHA-256 of each jar, by path.

    Raises:
        ConfigurationError: Maven is not installed.
        PermanentError: Maven failed; the message has the end of its output.
    """
    maven = shutil.which("mvn")
    if not maven:
        raise ConfigurationError([Fault("this machine", "has no Maven", "apt-get install maven")])
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        _copy_with_maven(maven, wanted, root, "-Dmdep.useRepositoryLayout=true")
        jars = {jar.relative_to(root).as_posix(): _sha256(jar) for jar in root.rglob("*.jar")}
    return "".join(f"{path} {jars[path]}\n" for path in sorted(jars))


def java(candidates: Sequence[str] | None = None, seconds: float = JAVA_SECONDS) -> Path:
    """A Java that Neo4j runs on: JAVA_HOME's, or the PATH's.

    Args:
        candidates: programs to ask; by default those of this machine.
        seconds: limit of each answer.

    Raises:
        ConfigurationError: no suitable version is installed.
        TemporaryError: none was found, and a program did not answer in time.
    """
    slow = []
    for candidate in _installed_javas() if candidates is None else candidates:
        try:
            done = subprocess.run(
                [candidate, "-version"],
                capture_output=True,
                text=True,
                timeout=seconds,
                check=False,
            )
        except subprocess.TimeoutExpired:
            slow.append(candidate)
            continue
        except OSError:
            continue
        found = re.search(r'version "(\d+)', done.stderr)
        if found and int(found[1]) in JAVA_VERSIONS:
            return Path(candidate)
    if slow:
        raise TemporaryError(
            f"{', '.join(slow)} -version did not answer within {seconds:g} s: try again when this machine is less busy"
        )
    raise ConfigurationError(
        [Fault("this machine", "has no Java 17 or 21, which Neo4j needs", "apt-get install openjdk-17-jre-headless")]
    )  # fmt: skip


def _installed_javas() -> list[str]:
    home = os.environ.get("JAVA_HOME")
    first = [f"{home}/bin/java" if home else None, shutil.which("java")]
    return [*filter(None, first), *map(str, sorted(Path("/usr/lib/jvm").glob("*/bin/java")))]


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
        # so that it stops in 2 s instead of 7-12
        "internal.dbms.bolt.netty_server_shutdown_quiet_period": "0",
    }
    text = "".join(f"{key}={value}\n" for key, value in settings.items())
    write_atomic(home / "conf" / "neo4j.conf", text)


def server_argv(home: Path) -> tuple[str, ...]:
    """Command line of the server."""
    return _argv(home, "server", SERVER, [f"--home-dir={home}", f"--config-dir={home / 'conf'}"])


def admin(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run neo4j-admin. Its arguments are passed in a file, because they contain a password."""
    environ = {**os.environ, "NEO4J_HOME": str(home), "NEO4J_CONF": str(home / "conf")}
    argv = _argv(home, f"admin-{os.getpid()}", ADMIN, words)
    try:
        return subprocess.run(argv, env=environ, capture_output=True, text=True, check=False)
    finally:
        Path(argv[-1].removeprefix("@")).unlink()


def write_admin(directory: Path, home: Path) -> Path:
    """Write the program `neo4j-admin` of an installation.

    Args:
        directory: the directory to write to.
        home: directory of the installation; its `conf` names the data directory.
    """
    argv = _argv(home, "admin", ADMIN, ())
    script = directory / "neo4j-admin"
    directory.mkdir(parents=True, exist_ok=True)
    words = " ".join(f'"{word}"' for word in argv)
    exports = f'NEO4J_HOME="{home}" NEO4J_CONF="{home / "conf"}"'
    write_atomic(script, f'#!/bin/sh\nexec env {exports} {words} "$@"\n')
    script.chmod(0o755)
    return script


def write_programs(directory: Path, home: Path) -> None:
    """Write the programs `neo4j` and `neo4j-admin` of an installation; NEO4J_CONF names their settings.

    Args:
        directory: the directory to write to.
        home: directory of the installation.
    """
    home.mkdir(parents=True, exist_ok=True)
    for name, main, words in (
        ("neo4j-admin", ADMIN, '"$@"'),
        ("neo4j", SERVER, f'--home-dir="{home}" --config-dir="$NEO4J_CONF"'),
    ):
        argv = " ".join(f'"{word}"' for word in _argv(home, name, main, ()))
        script = directory / name
        write_atomic(script, f'#!/bin/sh\nNEO4J_HOME="{home}" exec {argv} {words}\n')
        script.chmod(0o755)


def set_initial_password(home: Path, password: str) -> None:
    """Set the first password, before the first start, as `neo4j-admin dbms set-initial-password` does: in auth.ini.

    This way the password is on no command line, and no Java is started (4 s on a busy core). The format is that
    of 5.26.30: SHA-256 of salt and password, hashed again until there were 1024 rounds.
    """
    salt, rounds = secrets.token_bytes(32), 1024
    digest = hashlib.sha256(salt + password.encode()).digest()
    for _ in range(rounds - 1):
        digest = hashlib.sha256(digest).digest()
    found = re.search(
        r"^server\.directories\.data=(.+)$",
        (home / "conf" / "neo4j.conf").read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    data = Path(found[1]) if found else home / "data"
    line = f"neo4j:SHA-256,{digest.hex()},{salt.hex()},{rounds}:\n"
    write_atomic(data / "dbms" / "auth.ini", line)


def _argv(home: Path, name: str, main: str, words: Sequence[str]) -> tuple[str, ...]:
    """Java with everything in an argument file (java(1), "@argfiles"): the class path alone would fill a screen."""
    arguments = [*MEMORY, *MODULES, "-cp", f"{ensure()}/*", main, *words]
    file = home / f"{name}.args"
    write_atomic(file, "".join(f"{quoted(argument)}\n" for argument in arguments))
    return (str(java()), f"@{file}")


def quoted(argument: str) -> str:
    """Quoted for an argument file, where a backslash escapes, a newline too."""
    escaped = argument.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def _copy_with_maven(maven: str, wanted: str, target: Path, *options: str) -> None:
    """Copy all jars that a version needs at run time to a directory."""
    pairs = (("org.neo4j", "neo4j"), ("org.neo4j.app", "neo4j-server"))
    dependencies = "".join(
        f"<dependency><groupId>{group}</groupId><artifactId>{artifact}</artifactId><version>{wanted}</version></dependency>"
        for group, artifact in pairs
    )
    project = (
        '<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>'
        "<groupId>sandbox.local</groupId><artifactId>neo4j</artifactId><version>1</version>"
        f"<dependencies>{dependencies}</dependencies></project>"
    )
    with tempfile.TemporaryDirectory() as directory:
        pom = Path(directory) / "pom.xml"
        pom.write_text(project, encoding="utf-8")
        scope = ["-DincludeScope=runtime", f"-DoutputDirectory={target}"]
        argv = [maven, "-B", "-q", "-f", str(pom), MAVEN_COPY, *scope, *options]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise PermanentError(f"Maven brought no Neo4j {wanted}: {done.stdout.strip()[-1000:]}")


def _check(directory: Path, entries: Sequence[Sequence[str]]) -> None:
    """Check that a directory has exactly the jars of the lock file."""
    wanted = {Path(path).name: digest for path, digest in entries}
    for file in directory.iterdir():
        if file.name not in wanted:
            file.unlink()
    bad = [
        n for n, d in wanted.items() if not (directory / n).exists() or _sha256(directory / n) != d
    ]
    for name in bad:
        (directory / name).unlink(missing_ok=True)
    if bad:
        raise PermanentError(
            f"Maven brought not the files that {LOCK.name} pins: {', '.join(bad[:5])}"
        )


def _download_all(
    directory: Path, entries: Sequence[Sequence[str]], tell: Callable[[str], None]
) -> None:
    """Download several files in parallel. After the first failure no other download starts.

    Otherwise each would wait and retry: an hour if the repository does not answer.
    """
    with (
        httpx.Client(follow_redirects=True, timeout=60) as client,
        ThreadPoolExecutor(DOWNLOADS) as pool,
    ):
        dead = threading.Event()

        def bring(path: str, digest: str) -> None:
            if dead.is_set():
                return
            try:
                _download(client, directory, path, digest)
            except IsaError:
                dead.set()
                raise

        futures = [pool.submit(bring, path, digest) for path, digest in entries]
        told = time.monotonic()
        for done, future in enumerate(futures, 1):
            future.result()
            if time.monotonic() - told > 3 or done == len(futures):
                tell(f"Neo4j {version()}: {done} of {len(futures)} jars")
                told = time.monotonic()


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
    if sys.argv[1:2] == ["lock"]:
        LOCK.write_text(lock(sys.argv[2]), encoding="utf-8")
    ensure()
