"""Brings a set's users, rights, rules and retained messages into the live EMQX.

EMQX imports by merging: what is in the set is as it was then, what came since stays beside it. So nothing is removed,
and the comparison says what the cluster has more. Whoever is there keeps his password (`accounts`), the administrator
among them, who must be able to sign on afterwards with what Secret emqx-auth says.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from archive.leftovers import Leftovers
from archive.manifest import Measure
from archive.reader import SetReader
from components.access import Access
from components.base import Live, Served
from components.emqx.accounts import import_beside, returning
from components.emqx.client import API_PORT, STATEFULSET, Api, sign_on
from components.emqx.fingerprint import measure as measure_cluster
from components.emqx.restore import FORM, explained
from errors import TemporaryError

EVERYTHING = "cluster"


def units(reader: SetReader) -> dict[str, int]:
    """One unit: the export is imported as a whole."""
    return {EVERYTHING: sum(reader.size(name) for name in reader.names(FORM))}


@contextmanager
def fence(access: Access, chosen: Iterable[str]) -> Iterator[str]:
    """There is none, and no need: nothing is removed."""
    yield "clients go on"


def replace(
    access: Access,
    served: Served | None,
    reader: SetReader,
    chosen: Iterable[str],
    leftovers: Leftovers,
) -> list[str]:
    """Import the set's export; accounts that are there keep their passwords.

    Returns:
        What else there is, and whose passwords are the set's, for people.

    Raises:
        Damaged: it is not what was stored.
        PermanentError: EMQX does not take it.
        TemporaryError: it went away.
    """
    spool = access.settings.backup.spool
    spool.mkdir(parents=True, exist_ok=True)
    with explained(), tempfile.TemporaryDirectory(dir=spool) as directory:
        api = _api(access)
        back = returning(api, reader.manifest)
        names = reader.names(FORM)
        saved = [reader.save(name, Path(directory) / name) for name in names]
        with leftovers.replacing(chosen):
            for file in saved:
                import_beside(access, api, file, back)
    told = ["what the cluster had besides the set is still there: EMQX merges"]
    if back.names:
        told.append(f"back with the passwords of the set: {', '.join(back.names)}")
    return told


def measure(access: Access, reader: SetReader, chosen: Iterable[str]) -> list[Measure]:
    """What the cluster holds now."""
    with explained():
        return measure_cluster(_api(access))


LIVE = Live(
    units,
    fence,
    replace,
    measure,
    writers="clients go on; what they retain under a topic of the set until the import is overwritten",
    accounts="users, dashboard users and API keys that are gone come back with the set's passwords; those that are "
    "there keep their own",
)


def _api(access: Access) -> Api:
    for node in access.endpoints(STATEFULSET, access.settings.components.emqx.members, API_PORT):
        if node.host:
            return sign_on(access, node)
    raise TemporaryError("no node of EMQX runs", delay=15)
