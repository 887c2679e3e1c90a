"""A command whose output nobody reads to the end: `isa plan | head`."""

from __future__ import annotations

import io
import os
import subprocess
import sys

import pytest

from cli.printing.broken_pipe import abandoned, tolerant

# A command that prints more than a pipe holds and then exits as `isa plan` does where a deploy would change something.
PRINTS_AND_EXITS_3 = """
import sys, click
from cli import main
from cli.commands.deploy import plan
@click.command()
@click.option("--json", "as_json", is_flag=True)
def talk(as_json):
    from cli.printing.tables import console
    for _ in range(3000):
        click.echo("x" * 80)
    console().print("y" * 80)
    print("one line more")
    raise click.exceptions.Exit(3)
plan.plan = talk
sys.argv = ["isa", "plan"]
main.main()
"""


def test_a_command_exits_with_its_own_code_though_its_reader_has_gone() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", PRINTS_AND_EXITS_3], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None and process.stderr is not None

    process.stdout.read(80)
    process.stdout.close()

    assert process.stderr.read() == b""
    assert process.wait(60) == 3


def test_a_command_goes_on_when_nobody_reads_its_progress() -> None:
    """`isa deploy --local 2>&1 | head` must not stop between two releases."""
    process = subprocess.Popen(
        [sys.executable, "-c", PRINTS_AND_EXITS_3], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert process.stdout is not None

    process.stdout.close()

    assert process.wait(60) == 3


def test_what_would_print_for_ever_learns_that_nobody_reads() -> None:
    reads, writes = os.pipe()
    with open(writes, "w") as pipe:
        stream = tolerant(pipe)
        print("heard", file=stream, flush=True)
        assert not abandoned(stream)
        os.close(reads)
        print("unheard", file=stream, flush=True)
        assert abandoned(stream)


def test_a_stream_keeps_its_letters_and_its_descriptor() -> None:
    reads, writes = os.pipe()
    with open(writes, "w", encoding="latin-1") as pipe, open(reads, "rb") as other:
        stream = tolerant(pipe)
        print("Größe ✗", file=stream, flush=True)
        stream.close()
        os.write(writes, b"still open")
        assert os.read(other.fileno(), 100) == "Größe ".encode("latin-1") + b"\\u2717\nstill open"


@pytest.mark.parametrize("stream", [io.StringIO(), None])
def test_a_stream_without_a_descriptor_stays_as_it_is(stream: io.StringIO | None) -> None:
    assert tolerant(stream) is stream  # type: ignore[arg-type]
    assert not abandoned(stream)
