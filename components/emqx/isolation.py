"""What of an export a scratch broker gets: all that is compared, with nothing switched on that calls out.

EMQX starts connectors as soon as they are imported: a scratch broker would sign on at databases and webhooks with the
platform's passwords, and one of MQTT or Kafka would take over the session of the live broker and its messages. So
connectors, actions, sources and bridges are imported switched off, and are compared as what they were. Of the other
settings only those come along that what is compared needs; so exhooks, cluster links, gateways, plugins, exporters and
authenticators that ask other servers stay out (emqx_mgmt_data_backup.erl, and each `import_config/1` of v5.8.9).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from components.emqx.hocon import FALSE, Scalar, Tree, UnknownForm, Value, parse, render

SWITCHED = ("connectors", "actions", "sources", "bridges")
ENABLE = "enable"
# Roots that are taken as they are: rules have no effect where nothing arrives and no action is on.
COMPARED = ("rule_engine", "retainer", "mqtt")
# Lists of which only EMQX's own database is taken: key of the export → field that says what an entry is.
BUILT_IN, ENTRIES = "built_in_database", {"authentication": "backend", "authorization": "type"}
SOURCES = "sources"
# Types of the older API → of actions and sources (emqx_action_info.erl: bridge_v1_type_name).
OLDER_TYPES = {"webhook": "http", "kafka": "kafka_producer", "gcp_pubsub": "gcp_pubsub_producer"}


@dataclass(frozen=True)
class Switches:
    """What of a configuration was on.

    Attributes:
        on: section, type and name → whether it was.
    """

    on: Mapping[tuple[str, str, str], bool]

    def restored(self, section: str, row: Mapping[str, Any]) -> Mapping[str, Any]:
        """A row of the API with the switch that the backup has for it.

        Args:
            section: list that it is of.
            row: of a scratch broker, where all is off.
        """
        if section not in SWITCHED:
            return row
        kind, name = str(row.get("type")), str(row.get("name"))
        on = self.on.get((section, kind, name))
        if on is None and section == "bridges":  # the older API shows actions and sources too
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
        configuration: of an export, HOCON.

    Raises:
        UnknownForm: EMQX does not write so.
    """
    tree = parse(configuration)
    made: Tree = {key: tree[key] for key in COMPARED if key in tree}
    for section in SWITCHED:
        if section in tree:
            made[section] = {
                kind: {name: {**one, ENABLE: FALSE} for name, one in named.items()}
                for kind, named in _kinds(tree, section).items()
            }
    for key, field in ENTRIES.items():
        if key in tree:
            made[key] = _built_in(tree[key], field)
    return render(made)


def switches(configuration: str) -> Switches:
    """What of an export's configuration is on.

    Args:
        configuration: HOCON.

    Raises:
        UnknownForm: EMQX does not write so.
    """
    tree = parse(configuration)
    return Switches(
        {
            (section, kind, name): one.get(ENABLE) != FALSE  # on by default
            for section in SWITCHED
            for kind, named in _kinds(tree, section).items()
            for name, one in named.items()
        }
    )


def _kinds(tree: Tree, section: str) -> dict[str, dict[str, Tree]]:
    """A section's entries by type and name."""
    found: dict[str, dict[str, Tree]] = {}
    for kind, named in _object(tree.get(section, {})).items():
        found[kind] = {name: _object(one) for name, one in _object(named).items()}
    return found


def _built_in(value: Value, field: str) -> Value:
    """Entries of EMQX's own database: of a list, of the sources of an object, or an authenticator alone."""
    if isinstance(value, dict) and field in value:
        return _built_in([value], field)
    if isinstance(value, dict):
        rest = {key: one for key, one in value.items() if key != SOURCES}
        return {**rest, **({SOURCES: _built_in(value[SOURCES], field)} if SOURCES in value else {})}
    if not isinstance(value, list):
        raise UnknownForm("the configuration has no list of authenticators or sources")
    return [one for one in value if _field(one, field) == BUILT_IN]


def _field(value: Value, name: str) -> str:
    found = _object(value).get(name)
    return found.text if isinstance(found, Scalar) else ""


def _object(value: Value) -> Tree:
    if not isinstance(value, dict):
        raise UnknownForm("the configuration has another value where EMQX writes an object")
    return value
