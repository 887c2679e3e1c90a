"""Sets of EMQX: taken whatever keeps its messages, imported whatever lies on the node, refused beforehand."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from archive.backup.cleanup_journal import CleanupJournal, ExportArchive, Resource
from archive.backup.manifest import Measure
from components.base import BackupContent
from components.emqx import backup
from components.emqx.client import USERS
from components.emqx.exports.export import UPLOAD, rewritten
from components.emqx.fingerprint import ACL, MESSAGES, NEWEST
from components.emqx.live import can_take
from components.emqx.restore import SOURCE, import_export, load

from .emqx_archives import TABLES, archive
from .emqx_broker import Broker

KEPT = {"plant/1": (b"on", 0), "plant/2": (b"off", 4_102_444_800_000)}


class Writer:
    """What of a SetWriter a backup of EMQX uses."""

    def __init__(self, *earlier: Resource) -> None:
        self.cleanup = CleanupJournal(earlier)

    def spooled(self, pieces: Iterable[bytes], _: int) -> Any:
        self._data = b"".join(pieces)
        return self

    def __enter__(self) -> Any:
        return SimpleNamespace(size=len(self._data), reader=lambda: io.BytesIO(self._data))

    def __exit__(self, *_: object) -> None:
        """Nothing is left."""

    def add(self, *_: Any) -> None:
        """The store is not of interest here."""


class Reader:
    """A set with one export."""

    def __init__(self, export: io.BytesIO, **counts: int) -> None:
        fingerprint = [
            Measure(unit="cluster", item=item.replace("_", " "), count=count, origin="source")
            for item, count in counts.items()
        ]
        self._export = export
        self.manifest: Any = SimpleNamespace(
            topology={"fingerprint": NEWEST}, fingerprint=fingerprint
        )

    def names(self, _: str) -> list[str]:
        return ["emqx-export-then.tar.gz"]

    def save(self, _: str, file: Path) -> Path:
        file.write_bytes(self._export.getvalue())
        return file


def holding(messages: dict[str, tuple[bytes, int]]) -> Broker:
    """A broker with these retained messages, in its export too."""
    broker = Broker()
    broker.retained = {topic: payload for topic, (payload, _) in messages.items()}
    broker.export = archive(messages).getvalue()
    return broker


def take(broker: Broker, writer: Writer | None = None) -> BackupContent:
    return backup.back_up(broker.access, writer or Writer())  # type: ignore[arg-type]


def measured(taken: BackupContent, item: str) -> Measure | None:
    return next((one for one in taken.fingerprint if one.item == item), None)


# ---------------------------------------------------------------------- backups
def test_messages_are_measured_in_the_export_while_clients_go_on() -> None:
    broker = holding(KEPT)
    broker.retained |= {f"new/{n}": b"" for n in range(9)}  # since the export was made
    taken = take(broker)
    stays, goes = measured(taken, MESSAGES), measured(taken, f"{MESSAGES} that expire")
    assert stays is not None
    assert goes is not None
    assert (stays.count, stays.until, bool(stays.digest), goes.count) == (1, None, True, 1)


def test_an_export_without_messages_that_are_listed_is_partial() -> None:
    broker = holding(KEPT)
    broker.retained |= {f"plant/{n}": b"x" for n in range(100)}
    (missing,) = take(broker).missing
    assert "retained messages: the export lacks" in missing


@pytest.mark.parametrize(
    "retainer", [{"enable": False, "backend": {}}, {"enable": True, "backend": {"enable": False}}]
)
def test_a_retainer_that_is_off_or_external_costs_the_set_its_messages_only(
    retainer: dict[str, Any],
) -> None:
    broker = Broker({"/mqtt/retainer": retainer})
    broker.answers["/mqtt/retainer/messages"] = (400, "This API only support built in database")
    broker.export = archive().getvalue()
    taken = take(broker)
    assert taken.missing == ()
    assert measured(taken, MESSAGES) is None
    assert any("external store" in words for words in taken.not_covered)


def test_a_table_that_the_export_lacks_is_named_and_not_compared() -> None:
    broker = holding(KEPT)
    broker.lists["/api_key"] = [{"name": "k"}]
    tables = [table for table in TABLES if table != "emqx_app"]
    broker.export = archive(KEPT, tables=tables).getvalue()
    taken = take(broker)
    assert taken.missing == ("API keys: the export has no emqx_app",)
    assert measured(taken, "API keys") is None
    assert measured(taken, MESSAGES) is not None


def test_messages_that_cannot_be_read_are_counted_and_that_is_told() -> None:
    broker = holding(KEPT)
    broker.export = archive(tables=[*TABLES, "emqx_retainer_message"]).getvalue()
    taken = take(broker)
    counted = measured(taken, MESSAGES)
    assert counted is not None
    assert (counted.count, counted.until, counted.digest) == (2, 2, "")
    assert "cannot tell which of them expire" in taken.missing[0]


def test_the_export_of_a_killed_run_is_removed_and_those_of_people_stay() -> None:
    broker = holding(KEPT)
    broker.put("emqx-export-of-people.tar.gz", b"", age=7200)
    broker.put("emqx-export-ours.tar.gz", b"", age=20_000)
    since = int(broker.made["emqx-export-ours.tar.gz"]) - 5
    note = ExportArchive(node="emqx-0", known=(), since=since)
    take(broker, Writer(note))
    assert set(broker.files) == {"emqx-export-of-people.tar.gz"}


# ---------------------------------------------------------------------- imports
def test_a_restore_that_was_killed_in_mid_import_is_repeated(tmp_path: Path) -> None:
    broker, file = Broker(), tmp_path / "emqx-export-then.tar.gz"
    file.write_bytes(archive(KEPT).getvalue())
    left = rewritten(file)
    broker.put(left.name, b"", age=24 * 3600)
    broker.put(file.name, b"")  # somebody keeps it there
    import_export(broker.access, broker.api, rewritten(file))
    assert len(broker.imported) == 1
    assert set(broker.files) == {file.name}


def test_what_was_uploaded_goes_where_the_import_is_refused_and_another_runs_upload_stays(
    tmp_path: Path,
) -> None:
    broker, file = Broker(), tmp_path / "emqx-export-then.tar.gz"
    file.write_bytes(archive(KEPT).getvalue())
    broker.put(f"{UPLOAD}other.tar.gz", b"")
    broker.answers["/data/import"] = (400, "no")
    with pytest.raises(httpx.HTTPStatusError):
        import_export(broker.access, broker.api, rewritten(file))
    assert set(broker.files) == {f"{UPLOAD}other.tar.gz"}


def test_a_proofs_broker_shows_the_rights_of_a_set_whose_source_is_in_the_helm_values() -> None:
    broker = Broker()
    node: Any = SimpleNamespace(url="emqx", member="scratch", host="emqx")
    load(broker.access, {"": node}, Reader(archive(KEPT)))  # type: ignore[arg-type]
    assert SOURCE in broker.lists
    assert broker.files == {}


# ---------------------------------------------------------------------- what the live one refuses
def refusals(broker: Broker, reader: Reader) -> list[str]:
    found = can_take(broker.access, reader, ["cluster"])  # type: ignore[arg-type]
    assert not {method for method, path in broker.asked if path != "/login"} - {"GET"}
    return found


READY: dict[str, Any] = {USERS: [], SOURCE: {}, f"{ACL}/users": []}


def test_a_set_of_this_version_with_everything_configured_is_taken() -> None:
    assert refusals(Broker(READY), Reader(archive(KEPT), users=3, rights_of_users=1)) == []


@pytest.mark.parametrize(
    ("version", "edition", "told"),
    [
        ("5.9.0", "ce", "its export is from EMQX 5.9.0, which 5.8.9 refuses"),
        ("6.0.1", "ce", "its export is from EMQX 6.0.1, which 5.8.9 refuses"),
        ("5.8.9", "ee", "EMQX Enterprise, which the open source edition refuses"),
    ],
)
def test_an_export_that_emqx_refuses_is_known_before(version: str, edition: str, told: str) -> None:
    (found,) = refusals(Broker(READY), Reader(archive(KEPT, version=version, edition=edition)))
    assert found.startswith("cluster: ")
    assert told in found


def test_a_later_patch_of_the_same_version_is_taken() -> None:
    assert refusals(Broker(READY), Reader(archive(KEPT, version="5.8.10"))) == []


@pytest.mark.parametrize(
    ("gone", "counts", "told"),
    [(USERS, {"users": 3}, "authentication"), (SOURCE, {"rights_of_clients": 1}, "authorization")],
)
def test_users_and_rights_that_would_have_no_effect_are_told(
    gone: str, counts: dict[str, int], told: str
) -> None:
    there = {path: rows for path, rows in READY.items() if path != gone}
    (found,) = refusals(Broker(there), Reader(archive(KEPT), **counts))
    assert f"no built_in_database in {told}" in found
    bringing = f"{told} {{\n  sources = [{{type = built_in_database}}]\n}}\n"
    assert refusals(Broker(there), Reader(archive(KEPT, configuration=bringing), **counts)) == []
    assert refusals(Broker(there), Reader(archive(KEPT))) == []
