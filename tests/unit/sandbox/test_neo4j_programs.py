"""Neo4j's jars come whole or not at all, and a password reaches the server unchanged and unseen."""

from __future__ import annotations

import hashlib
import http.server
import re
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from errors import ConfigurationError, PermanentError, TemporaryError
from sandbox.machine import neo4j_programs as programs

VERSION = "5.0.0"
JARS = {f"org/neo4j/neo4j/{VERSION}/neo4j-{VERSION}.jar": b"one"}
JARS |= {f"org/example/part-{n}/1/part-{n}-1.jar": b"part %d" % n for n in range(100)}


@dataclass
class Repository:
    """A Maven repository on loopback.

    Attributes:
        files: path → content.
        asked: paths, as they were asked for.
        broken: answers 503 to everything.
    """

    files: dict[str, bytes]
    asked: list[str] = field(default_factory=list)
    broken: bool = False


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Repository]:
    """A repository that holds what the lock file pins, and an empty cache."""
    content = Repository(dict(JARS))

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.removeprefix("/maven2/")
            content.asked.append(path)
            body = b"" if content.broken else content.files.get(path, b"")
            self.send_response(200 if body else 503)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    lock = tmp_path / "neo4j-jars.lock"
    lock.write_text(
        "".join(f"{path} {hashlib.sha256(body).hexdigest()}\n" for path, body in JARS.items())
    )
    monkeypatch.setattr(programs, "LOCK", lock)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv(
        programs.REPOSITORY_VARIABLE, f"http://127.0.0.1:{server.server_port}/maven2"
    )
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    yield content
    server.shutdown()
    server.server_close()


def test_every_jar_of_the_lock_file_is_in_the_directory(repository: Repository) -> None:
    told: list[str] = []
    directory = programs.ensure(told.append)
    assert {file.name: file.read_bytes() for file in directory.iterdir()} == {
        Path(path).name: body for path, body in JARS.items()
    }
    assert told[-1] == f"Neo4j {VERSION}: 101 of 101 jars"


def test_a_second_call_asks_nobody(repository: Repository) -> None:
    programs.ensure(lambda words: None)
    repository.asked.clear()
    programs.ensure(lambda words: None)
    assert repository.asked == []


def test_another_file_than_the_pinned_one_is_refused_and_no_directory_appears(
    repository: Repository, tmp_path: Path
) -> None:
    path = next(iter(JARS))
    repository.files[path] = b"other"
    with pytest.raises(PermanentError, match=f"neo4j-{VERSION}.jar is not the file"):
        programs.ensure(lambda words: None)
    assert not (tmp_path / "cache" / "isa-cloud" / "neo4j" / VERSION).exists()


def test_an_interrupted_download_goes_on_where_it_was(repository: Repository) -> None:
    last = list(JARS)[-1]
    body = repository.files.pop(last)
    with pytest.raises(TemporaryError, match=r"part-99-1\.jar"):
        programs.ensure(lambda words: None)
    repository.files[last] = body
    repository.asked.clear()
    programs.ensure(lambda words: None)
    assert last in repository.asked
    # the downloads that were under way beside the failed one may have been given up with it
    assert len(repository.asked) <= programs.DOWNLOADS


def test_a_dead_repository_is_given_up_after_the_first_jar(repository: Repository) -> None:
    repository.broken = True
    with pytest.raises(TemporaryError):
        programs.ensure(lambda words: None)
    # Those under way end their tries; the rest is never asked for.
    assert len(set(repository.asked)) <= programs.DOWNLOADS


def test_a_java_that_does_not_answer_in_time_is_not_called_missing(tmp_path: Path) -> None:
    slow = tmp_path / "java"
    slow.write_text("#!/bin/sh\nexec sleep 60\n", encoding="utf-8")
    slow.chmod(0o755)
    with pytest.raises(TemporaryError, match=r"java -version did not answer within 0\.05 s"):
        programs.java([str(slow)], seconds=0.05)
    with pytest.raises(ConfigurationError, match="Java 17 or 21"):
        programs.java([str(tmp_path / "missing")])


def test_java_gets_arguments_as_they_were_given(tmp_path: Path) -> None:
    words = ['a"b c', "back\\slash\\n", "line\nbreak", "#hash", "'single'", "@at"]
    source = tmp_path / "Echo.java"
    source.write_text(
        'class Echo { public static void main(String[] a) { System.out.print(String.join("|", a)); } }'
    )
    arguments = tmp_path / "echo.args"
    arguments.write_text("".join(f"{programs.quoted(word)}\n" for word in [str(source), *words]))
    argv = [str(programs.java()), "-XX:TieredStopAtLevel=1", f"@{arguments}"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.stdout.split("|") == words, done.stderr


def test_the_first_password_is_hashed_where_the_server_looks_for_it(tmp_path: Path) -> None:
    data = tmp_path / "volume" / "data"
    programs.write_config(tmp_path, data, "127.0.0.1")
    programs.set_initial_password(tmp_path, "correct-horse")
    file = data / "dbms" / "auth.ini"
    match = re.fullmatch(r"neo4j:SHA-256,([0-9a-f]{64}),([0-9a-f]{64}),1024:\n", file.read_text())
    assert match
    digest = bytes.fromhex(match[2]) + b"correct-horse"
    for _ in range(1024):
        digest = hashlib.sha256(digest).digest()
    assert digest.hex() == match[1]
    assert file.stat().st_mode & 0o777 == 0o600


def test_maven_brings_the_jars_where_it_is_installed_but_the_hashes_decide(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jars = tmp_path / "jars"
    jars.mkdir()
    for path, body in JARS.items():
        (jars / Path(path).name).write_bytes(body)
    script = tmp_path / "bin" / "mvn"
    script.parent.mkdir()
    script.write_text(
        f'#!/bin/sh\nfor a; do case $a in -DoutputDirectory=*) cp {jars}/* "${{a#*=}}";; esac; done\n'
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(script.parent), prepend=":")
    monkeypatch.delenv(programs.REPOSITORY_VARIABLE)
    good = (jars / "part-7-1.jar").read_bytes()
    (jars / "part-7-1.jar").write_bytes(b"other")
    with pytest.raises(PermanentError, match=r"part-7-1\.jar"):
        programs.ensure(lambda words: None)
    (jars / "part-7-1.jar").write_bytes(good)
    directory = programs.ensure(lambda words: None)
    assert len(list(directory.iterdir())) == len(JARS)
