"""Routes of tables without effect: rules, connectors, actions, bans, access rules."""

from __future__ import annotations

import secrets
import time
from datetime import datetime
from typing import Any

from sandbox.doubles.emqx.api.wire import Json, Refused, Wire, an_object


class Stored(Wire):
    """Creates, lists and deletes rows of the shared tables."""

    # ------------------------------------------------------------------ rules
    def rules(self) -> Json:
        return self.page([{"id": i, **rule} for i, rule in sorted(self.tables["rules"].items())])

    def rule(self, identity: str) -> Json:
        return {"id": identity, **self.row("rules", identity, "Rule Id Not Found")}

    def add_rule(self) -> Json:
        given = self.json_body("sql")
        identity = str(given.pop("id", None) or f"rule_{secrets.token_hex(2)}")
        made = {"enable": True, "actions": [], "name": "", "description": "", **given}
        taken = Refused(400, "BAD_REQUEST", "rule id already exists")
        self.insert("rules", {identity: made}, taken)
        return {"id": identity, **made}

    def put_rule(self, identity: str) -> Json:
        given = {k: v for k, v in self.json_body("sql").items() if k != "id"}
        return {"id": identity, **self.replace("rules", identity, given, "Rule Id Not Found")}

    def drop_rule(self, identity: str) -> None:
        self.remove("rules", identity, "Rule Id Not Found")

    # ------------------------------------------------------------------ connectors, actions, bridges
    def configured(self, section: str) -> list[Json]:
        return [self._configured(i, made) for i, made in sorted(self.tables[section].items())]

    def one_configured(self, section: str, identity: str) -> Json:
        return self._configured(identity, self.row(section, identity))

    def add_configured(self, section: str) -> Json:
        given = self.json_body("type", "name")
        identity = f"{given.pop('type')}:{given.pop('name')}"
        taken = Refused(400, "ALREADY_EXISTS", f"{section.removesuffix('s')} already exists")
        self.insert(section, {identity: {"enable": True, **given}}, taken)
        return self._configured(identity, self.tables[section][identity])

    def put_configured(self, section: str, identity: str) -> Json:
        given = {k: v for k, v in self.json_body().items() if k not in ("type", "name")}
        return self._configured(identity, self.replace(section, identity, given))

    def drop_configured(self, section: str, identity: str) -> None:
        self.remove(section, identity)

    def _configured(self, identity: str, made: Json) -> Json:
        kind, _, name = identity.partition(":")
        node_status = [
            {"node": self.node.node_name(pod), "status": "disconnected"}
            for pod in self.node.running()
        ]
        shown = {"status": "disconnected", "node_status": node_status}
        return {"type": kind, "name": name, **made, **shown}

    # ------------------------------------------------------------------ bans
    def banned(self) -> Json:
        rows = (row for _, row in sorted(self.tables["banned"].items()))
        return self.page([row for row in rows if not _is_over(row["until"])])

    def ban(self) -> Json:
        given = self.json_body("as", "who")
        made = {"by": "mgmt_api", "reason": "", "at": _rfc3339(), "until": "infinity", **given}
        if _is_over(made["until"]):
            raise Refused(400, "BAD_REQUEST", "Cannot create expired banned")
        taken = Refused(400, "ALREADY_EXISTS", f"{given['as']}: {given['who']} is banned already")
        self.insert("banned", {f"{given['as']}:{given['who']}": made}, taken)
        return made

    def unban(self, kind: str, who: str) -> None:
        self.remove("banned", f"{kind}:{who}", f"{kind}: {who} not found")

    def unban_all(self) -> None:
        self.node.state.change(lambda tables: tables["banned"].clear())

    # ------------------------------------------------------------------ authorization
    def authorization(self) -> Json:
        kept = self.tables["authorization"]
        return {
            "no_match": kept.get("no_match", "allow"),
            "deny_action": kept.get("deny_action", "ignore"),
        }

    def put_authorization(self) -> Json:
        given = self.json_body()
        self.node.state.change(lambda tables: tables["authorization"].update(given))
        return self.authorization()

    def authorizers(self) -> Json:
        return {"sources": self._sources(self.tables)}

    def authorizer(self, kind: str) -> Json:
        for source in self._sources(self.tables):
            if source["type"] == kind:
                return source
        raise Refused(404, "NOT_FOUND", f"Not found: {kind}")

    def add_authorizer(self) -> None:
        given = self.json_body("type")

        def edit(tables: Json) -> None:
            there = self._sources(tables)
            if any(source["type"] == given["type"] for source in there):
                raise Refused(400, "BAD_REQUEST", f"{{already_exists, {given['type']}}}")
            tables["authorization"]["sources"] = [{"enable": True, **given}, *there]

        self.node.state.change(edit)

    def drop_authorizer(self, kind: str) -> None:
        self.authorizer(kind)

        def edit(tables: Json) -> None:
            kept = [source for source in self._sources(tables) if source["type"] != kind]
            tables["authorization"]["sources"] = kept

        self.node.state.change(edit)

    def _sources(self, tables: Json) -> list[Json]:
        """Sources set at run time; by default only the file (default_authz/0 in emqx_authz_schema.erl)."""
        return list(tables["authorization"].get("sources", [{"type": "file", "enable": True}]))

    def _needs_source(self) -> None:
        """The check of the rules' routes (is_configured_authz_source/2 in emqx_authz_api_mnesia.erl)."""
        self.authorizer("built_in_database")

    # ------------------------------------------------------------------ access rules
    # keys of rows: users:NAME, clients:ID and all
    def acl(self, whom: str) -> Json:
        self._needs_source()
        rows = sorted(self.tables["acl"].items())
        return self.page([row for name, row in rows if name.startswith(f"{whom}:")])

    def one_acl(self, whom: str, name: str) -> Json:
        self._needs_source()
        return self.row("acl", f"{whom}:{name}")

    def add_acl(self, whom: str) -> None:
        self._needs_source()
        given = self.any_body()
        if not isinstance(given, list):
            raise Refused(400, "BAD_REQUEST", "an array is required")
        rows = {
            f"{whom}:{row[FIELDS[whom]]}": _checked(row)
            for row in (an_object(row, FIELDS[whom]) for row in given)
        }
        self.insert("acl", rows, Refused(409, "ALREADY_EXISTS", "rules exist already"))

    def put_acl(self, whom: str, name: str) -> None:
        self._needs_source()
        row = _checked({**self.json_body(), FIELDS[whom]: name})
        self.node.state.change(lambda tables: tables["acl"].update({f"{whom}:{name}": row}))

    def drop_acl(self, whom: str, name: str) -> None:
        self._needs_source()
        self.remove("acl", f"{whom}:{name}")

    def acl_of_all(self) -> Json:
        self._needs_source()
        return {"rules": self.tables["acl"].get("all", {"rules": []})["rules"]}

    def put_acl_of_all(self) -> None:
        self._needs_source()
        row = _checked(self.json_body())
        self.node.state.change(lambda tables: tables["acl"].update(all=row))

    def drop_acl_of_all(self) -> None:
        self._needs_source()
        self.node.state.change(lambda tables: tables["acl"].pop("all", None))

    def drop_all_acl(self) -> None:
        self.node.state.change(lambda tables: tables["acl"].clear())

    # ------------------------------------------------------------------ rows
    def row(self, table: str, name: str, missing: str = "") -> Json:
        """A row; 404 if it does not exist."""
        if name not in self.tables[table]:
            raise Refused(404, "NOT_FOUND", missing or f"{name} not found")
        return dict(self.tables[table][name])

    def insert(self, table: str, rows: dict[str, Json], taken: Refused) -> None:
        """Insert rows, all or none; refused if one of them exists on any node."""

        def edit(tables: Json) -> None:
            if rows.keys() & tables[table].keys():
                raise taken
            tables[table].update(rows)

        self.node.state.change(edit)

    def replace(self, table: str, name: str, fields: Json, missing: str = "") -> Json:
        """Give a row new values in these fields."""

        def edit(tables: Json) -> Any:
            if name not in tables[table]:
                raise Refused(404, "NOT_FOUND", missing or f"{name} not found")
            tables[table][name] |= fields
            return tables[table][name]

        return dict(self.node.state.change(edit))

    def remove(self, table: str, name: str, missing: str = "") -> None:
        """Delete a row; 404 if it does not exist."""

        def edit(tables: Json) -> None:
            if tables[table].pop(name, None) is None:
                raise Refused(404, "NOT_FOUND", missing or f"{name} not found")

        self.node.state.change(edit)


FIELDS = {"users": "username", "clients": "clientid"}


def _checked(row: Json) -> Json:
    rules = row.get("rules")
    if not isinstance(rules, list):
        raise Refused(400, "BAD_REQUEST", "missing required field: rules")
    for rule in rules:
        rule = an_object(rule, "topic", "permission", "action")
        if rule["permission"] not in ("allow", "deny") or rule["action"] not in (
            "publish",
            "subscribe",
            "all",
        ):
            raise Refused(400, "BAD_REQUEST", "bad rule schema")
    return row


def _is_over(until: Any) -> bool:
    return until != "infinity" and _epoch(until) <= time.time()


def _epoch(until: Any) -> float:
    return datetime.fromisoformat(str(until)).timestamp()


def _rfc3339() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime())
