"""A stream that comes back as another one is told by what is other; a server's own additions are no difference."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from archive.backup.manifest import Manifest
from components.nats.fingerprint import has_configuration, measure_configuration
from operations.verify.comparison import compare

SAVED: dict[str, Any] = {
    "name": "COPY",
    "retention": "limits",
    "num_replicas": 3,
    "placement": {"cluster": "east"},
    "mirror": {"name": "ORDERS"},
    "republish": {"src": ">", "dest": "told.>"},
    "max_age": 0,
    "metadata": {"owner": "shop", "_nats.req.level": "0"},
}


def differences(config: dict[str, Any]) -> str:
    saved = measure_configuration("stream app/COPY", SAVED, SAVED)
    found = measure_configuration("stream app/COPY", config, SAVED)
    return "; ".join(one.what for one in compare([saved], {"": [found]}))


def test_what_a_stream_does_not_follow_any_more_has_a_name() -> None:
    lost = {key: value for key, value in SAVED.items() if key not in ("mirror", "republish")}
    assert differences(lost).endswith("missing mirror republish")
    assert differences({**SAVED, "retention": "interest"}).endswith("other retention")
    assert differences({**SAVED, "metadata": {"owner": "bank"}}).endswith("other metadata")


def test_another_platform_and_another_servers_defaults_are_no_difference() -> None:
    there = {"num_replicas": 1, "placement": None, "persist_mode": "default", "sealed": False}
    metadata = {"owner": "shop", "_nats.ver": "2.15.1", "_nats.level": "5"}
    assert not differences({**SAVED, **there, "metadata": metadata})


def test_a_set_that_measured_no_configuration_is_compared_without() -> None:
    unit = "stream app/COPY"
    measured = measure_configuration(unit, SAVED, SAVED)
    old = cast(Manifest, SimpleNamespace(fingerprint=()))
    new = cast(Manifest, SimpleNamespace(fingerprint=(measured,)))
    assert (has_configuration(old, unit), has_configuration(new, unit)) == (False, True)
