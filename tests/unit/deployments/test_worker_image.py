from __future__ import annotations

import re
from pathlib import Path

from deployments.sandbox.control_room import CLIENT

PROJECT = Path(__file__).resolve().parents[3]


def test_the_sandbox_is_as_patient_with_its_server_as_the_workers_image() -> None:
    text = (PROJECT / "deployments" / "worker" / "Containerfile").read_text()
    (line,) = re.findall(r"^ENV (.*PREFECT_.*)$", text, re.MULTILINE)
    image = dict(one.split("=", 1) for one in line.split())
    assert {name: image.get(name) for name in CLIENT} == CLIENT
