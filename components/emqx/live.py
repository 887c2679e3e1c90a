"""Restores a backup's users, rights, rules and retained messages into the live EMQX.

EMQX merges an import: objects of the backup are replaced, newer objects stay. So nothing is removed, and the comparison
lists additional objects.

Existing accounts keep their passwords (`accounts`). This includes the administrator, whose password must still match
Secret emqx-auth.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from archive.backup.cleanup_journal import CleanupJournal
from archive.backup.manifest import Measure
from archive.backup.reader import SetReader
from components.access import Access
from components.base import Live, RunningScratch, without_fence
from components.emqx.accounts import import_beside, returning
from components.emqx.client import API_PORT, STATEFULSET, USERS, Api, rows, sign_on
from components.emqx.exports.export import Export
from components.emqx.fingerprint import measure as measure_cluster
from components.emqx.restore import FORM, SOURCE, explained, exported, saved_exports
from errors import TemporaryError

EVERYTHING = "cluster"
# Data that needs a built-in database in the configuration → path that shows it, key of the configuration, items.
NEEDS = {
    "users": (USERS, "authentication", ("users",)),
    "rights": (SOURCE, "authorization", ("rights of users", "rights of clients", "rights of all")),
}


def units(reader: SetReader) -> dict[str, int]:
    """One unit: the export is imported as a whole."""
    return {EVERYTHING: sum(reader.size(name) for name in reader.names(FORM))}


def replace(
    access: Access,
    served: RunningScratch | None,
    reader: SetReader,
    chosen: Iterable[str],
    cleanup: CleanupJournal,
) -> list[str]:
    """Import the backup's export; existing accounts keep their passwords.

    Returns:
        Remarks for the report: other objects stay, and accounts that have the backup's passwords.

    Raises:
        Damaged: the export differs from what was stored.
        PermanentError: EMQX refuses the export.
        TemporaryError: EMQX went away.
    """
    with explained(), saved_exports(access, reader) as files:
        api = _api(access)
        returned = returning(api, reader.manifest)
        with cleanup.replacing(chosen):
            for file in files:
                import_beside(access, api, file, returned)
    remarks = ["objects of the cluster that are not in the backup are still there: EMQX merges"]
    if returned.names:
        remarks.append(f"restored with the passwords of the backup: {', '.join(returned.names)}")
    return remarks


def measure(access: Access, reader: SetReader, chosen: Iterable[str]) -> list[Measure]:
    """Measure the live cluster."""
    messages = exported(access, reader).retained
    with explained():
        return measure_cluster(_api(access), reader.manifest, messages)


def can_take(access: Access, reader: SetReader, chosen: Iterable[str]) -> list[str]:
    """Why the cluster would refuse the export, or import parts of it without effect.

    Raises:
        TemporaryError: no node answers.
    """
    if EVERYTHING not in set(chosen):
        return []
    export = exported(access, reader)
    counts = {
        measure.item: max(measure.count, measure.until or 0)
        for measure in reader.manifest.fingerprint
    }
    with explained():
        api = _api(access)
        running = [row for row in rows(api, "/nodes") if row.get("node_status") == "running"]
        reasons = [
            unfit(export, str(row["version"]), str(row.get("edition", ""))) for row in running[:1]
        ]
        for kind, (path, root, items) in NEEDS.items():
            lacks = any(counts.get(item) for item in items) and api("GET", path).status_code == 404
            if lacks and not export.has_source(root, "built_in_database"):
                reasons.append(
                    f"its {kind} would have no effect: this EMQX has no built_in_database in {root}; add it first"
                )
    return [f"{EVERYTHING}: {reason}" for reason in reasons if reason]


def unfit(export: Export, version: str, edition: str) -> str:
    """Why an EMQX of this version and edition refuses an export; "" if it does not.

    See check_version/1 and check_edition/1 in apps/emqx_management/src/emqx_mgmt_data_backup.erl.
    """
    if export.edition == "ee" and edition.lower() == "opensource":
        return "its export is from EMQX Enterprise, which the open source edition refuses"
    export_version, live_version = (
        [int(number) for number in re.findall(r"\d+", text)[:2]]
        for text in (export.version, version)
    )
    if len(export_version) < 2 or export_version > live_version:
        return f"its export is from EMQX {export.version or 'an unknown version'}, which {version} refuses"
    return ""


LIVE = Live(
    units,
    without_fence("clients keep access"),
    replace,
    measure,
    can_take=can_take,
    writers="clients keep access; messages they retain before the import are overwritten if the backup has the same "
    "topic",
    accounts="users, dashboard users and API keys deleted since the backup come back with their old passwords; "
    "existing ones keep their current passwords",
)


def _api(access: Access) -> Api:
    for node in access.endpoints(STATEFULSET, access.settings.components.emqx.members, API_PORT):
        if node.host:
            return sign_on(access, node)
    raise TemporaryError("no node of EMQX is running", delay=15)
