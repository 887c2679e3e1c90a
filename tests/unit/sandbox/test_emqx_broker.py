"""The server behind EMQX's double starts with users of any name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from sandbox.doubles.emqx.broker import configuration
from tests import hostile


def test_the_server_reads_a_user_of_every_hostile_name(tmp_path: Path) -> None:
    names = hostile.names(hostile.MQTT_STRING).values()
    users = [{"user": name, "password": "x"} for name in names]
    file = tmp_path / "broker.conf"
    file.write_text(configuration({"accounts": {"MQTT": {"users": users}}}), encoding="utf-8")

    program = Path(sys.executable).with_name("nats-server")
    done = subprocess.run([program, "-t", "-c", file], capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
