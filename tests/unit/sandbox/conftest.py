"""An image of a program that does nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandbox.nodes.images import oci


@pytest.fixture
def image(tmp_path: Path) -> oci.Image:
    program = tmp_path / "program"
    program.write_bytes(b"#!/bin/sh\n")
    program.chmod(0o700)
    files: dict[str, Path | str] = {"/usr/bin/program": program, "/bin/sh": "../usr/bin/program"}
    return oci.Image("sandbox.local/program:1", files, ("/usr/bin/program",), {"/tmp": 0o1777})
