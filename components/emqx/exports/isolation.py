"""Prepares the configuration of an export for a scratch broker: no outgoing connections.

EMQX starts connectors as soon as they are imported. A scratch broker would connect to databases and webhooks with the
platform's passwords. A connector of MQTT or Kafka would take over the live broker's session and its messages.

So connectors, actions, sources and bridges are imported disabled, and compared with their saved switches. Of the other
settings only those that the comparison needs are imported. Exhooks, cluster links, gateways, plugins, exporters and
external authenticators are left out (emqx_mgmt_data_backup.erl, and each `import_config/1` of v5.8.9).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from components.emqx.exports.hocon import FALSE, Scalar, Tree, UnknownForm, Value, parse, render

SWITCHED = ("connectors", "actions", "sources", "bridges")
ENABLE = "enable"
# Sections that are imported unchanged: rules have no effect without messages and without enabled actions.
COMPARED = ("rule_engine", "retainer", "mqtt")
# Lists of which only EMQX's own database is imported: key of the export → field with the type of an entry.
BUILT_IN, ENTRIES = "built_in_database", {"authentication": "backend", "authorization": "type"}
SOURCES = "sources"
# Type in the older API → type of the action or source (emqx_action_info.erl: bridge_v1_type_name).
OLDER_TYPES = {"webhook": "http", "kafka": "kafka_producer", "gcp_pubsub": "gcp_pubsub_producer"}


@dataclass(frozen=True)
class Switches:
    """Which entries of a configuration were enabled.

    Attributes:
        on: section, type and name → enabled.
    """

    on: Mapping[tuple[str, str, str], bool]

    def restored(self, section: str, row: Mapping[str, Any]) -> Mapping[str, Any]:
        """A row of a scratch broker with the switch that the backup has.

        Args:
            section: name of its list.
            row: the row; disabled in the scratch broker.
        """
        if section not in SWITCHED:
            return row
        kind, name = str(row.get("type")), str(row.get("name"))
        on = self.on.get((section, kind, name))
        if on is None and section == "bridges":  # the older API also lists actions and sources
            on = self._of_bridge(kind, name)
        return row if on is None else {**row, ENABLE: on}

    def _of_bridge(self, kind: str, name: str) -> bool | None:
        called = {key[1]: on for key, on in self.on.items() if key[2] == name}
        kind = OLDER_TYPES.get(kind, kind)
        if kind in called:
            return called[kind]
        return any(called.values()) if called else None


def isolated(configuration: str) -> str:
    """A configuration for a scratch broker.

    Args:
        configuration: HOCON of an export.

    Raises:
        UnknownForm: it has a syntax that EMQX does not write.
    """
    tree = parse(configuration)
    result: Tree = {key: tree[key] for key in COMPARED if key in tree}
    for section in SWITCHED:
        if section in tree:
            result[section] = {
                kind: {name: {**entry, ENABLE: FALSE} for name, entry in entries.items()}
                for kind, entries in _kinds(tree, section).items()
            }
    for key, field in ENTRIES.items():
        if key in tree:
            result[key] = _built_in(tree[key], field)
    return render(result)


def switches(configuration: str) -> Switches:
    """The switches of an export's configuration.

    Args:
        configuration: HOCON.

    Raises:
        UnknownForm: it has a syntax that EMQX does not write.
    """
    tree = parse(configuration)
    return Switches(
        {
            (section, kind, name): entry.get(ENABLE) != FALSE  # on by default
            for section in SWITCHED
            for kind, entries in _kinds(tree, section).items()
            for name, entry in entries.items()
        }
    )


def _kinds(tree: Tree, section: str) -> dict[str, dict[str, Tree]]:
    """A section's entries by type and name."""
    kinds: dict[str, dict[str, Tree]] = {}
    for kind, entries in _object(tree.get(section, {})).items():
        kinds[kind] = {name: _object(entry) for name, entry in _object(entries).items()}
    return kinds


def _built_in(value: Value, field: str) -> Value:
    """Only the entries of EMQX's own database. The value is a list, an object with sources, or one authenticator."""
    if isinstance(value, dict) and field in value:
        return _built_in([value], field)
    if isinstance(value, dict):
        fields = {key: entry for key, entry in value.items() if key != SOURCES}
        return {
            **fields,
            **({SOURCES: _built_in(value[SOURCES], field)} if SOURCES in value else {}),
        }
    if not isinstance(value, list):
        raise UnknownForm("the configuration has no list of authenticators or sources")
    return [entry for entry in value if _field(entry, field) == BUILT_IN]


def _field(value: Value, name: str) -> str:
    scalar = _object(value).get(name)
    return scalar.text if isinstance(scalar, Scalar) else ""


def _object(value: Value) -> Tree:
    if not isinstance(value, dict):
        raise UnknownForm("the configuration has another value where EMQX writes an object")
    return value
