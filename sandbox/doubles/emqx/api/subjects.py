"""Routes of logins: users of MQTT and of the dashboard, API keys."""

from __future__ import annotations

import secrets
import time
from datetime import UTC, datetime

from sandbox.doubles.emqx.api.stored import Stored
from sandbox.doubles.emqx.api.wire import TOKEN_SECONDS, Json, Refused
from sandbox.doubles.emqx.broker import is_password, password_hash
from sandbox.doubles.emqx.export import VERSION

AUTHN = "password_based:built_in_database"
API_ROLES = ("administrator", "viewer", "publisher")


class Subjects(Stored):
    """Rows that are names with passwords."""

    # ------------------------------------------------------------------ sign-on
    def login(self) -> Json:
        given = self.json_body("username", "password")
        user = self.tables["dashboard_users"].get(given["username"])
        if user is None or not is_password(str(given["password"]), user["password_hash"]):
            raise Refused(401, "BAD_USERNAME_OR_PWD", "Auth failed")
        token = self.node.sign(given["username"])
        return {
            "token": token,
            "version": VERSION,
            "license": {"edition": "opensource"},
            "role": "administrator",
        }

    def logout(self) -> None:
        if self.json_body("username")["username"] != self.user:
            raise Refused(401, "WRONG_TOKEN_OR_USERNAME", "Ensure your token & username")
        now = time.time()

        def edit(tables: Json) -> None:
            kept = {mark: until for mark, until in tables["revoked"].items() if until > now}
            tables["revoked"] = kept | {self.token_mark: now + TOKEN_SECONDS}

        self.node.state.change(edit)

    # ------------------------------------------------------------------ users of MQTT
    def authenticators(self) -> list[Json]:
        if self.node.anonymous:
            return []
        return [{"id": AUTHN, "mechanism": "password_based", "backend": "built_in_database", "enable": True,
                 "user_id_type": "username", "password_hash_algorithm": {"name": "bcrypt"}}]  # fmt: skip

    def mqtt_users(self) -> Json:
        self._needs_authenticator()
        like = self.query.get("like_user_id", "")
        users = [(n, u) for n, u in sorted(self.tables["mqtt_users"].items()) if like in n]
        return self.page([{"user_id": n, "is_superuser": u["is_superuser"]} for n, u in users])

    def mqtt_user(self, name: str) -> Json:
        user = self.row("mqtt_users", name, "User not found")
        return {"user_id": name, "is_superuser": user["is_superuser"]}

    def add_mqtt_user(self) -> Json:
        self._needs_authenticator()
        given = self.json_body("user_id", "password")
        made = {
            "password_hash": password_hash(str(given["password"])),
            "is_superuser": bool(given.get("is_superuser")),
        }
        name = str(given["user_id"])
        self.insert(
            "mqtt_users",
            {name: made},
            Refused(409, "ALREADY_EXISTS", f"User '{name}' already exists"),
        )
        return {"user_id": name, "is_superuser": made["is_superuser"]}

    def put_mqtt_user(self, name: str) -> Json:
        given = self.json_body()
        fields: Json = {}
        if "password" in given:
            fields["password_hash"] = password_hash(str(given["password"]))
        if "is_superuser" in given:
            fields["is_superuser"] = bool(given["is_superuser"])
        user = self.replace("mqtt_users", name, fields, "User not found")
        return {"user_id": name, "is_superuser": user["is_superuser"]}

    def drop_mqtt_user(self, name: str) -> None:
        self.remove("mqtt_users", name, "User not found")

    # ------------------------------------------------------------------ users of the dashboard
    def dashboard_users(self) -> list[Json]:
        users = sorted(self.tables["dashboard_users"].items())
        return [_shown_user(name, user) for name, user in users]

    def add_dashboard_user(self) -> Json:
        given = self.json_body("username", "password")
        made = {
            "password_hash": password_hash(_legal(str(given["password"]))),
            "description": given.get("description", ""),
        }
        taken = Refused(400, "BAD_REQUEST", "username_already_exist")
        self.insert("dashboard_users", {given["username"]: made}, taken)
        return _shown_user(given["username"], made)

    def put_dashboard_user(self, name: str) -> Json:
        fields = {"description": self.json_body().get("description", "")}
        self._dashboard_user(name)
        return _shown_user(name, self.replace("dashboard_users", name, fields))

    def change_password(self, name: str) -> None:
        given = self.json_body("old_pwd", "new_pwd")
        user = self._dashboard_user(name)
        if not is_password(str(given["old_pwd"]), user["password_hash"]):
            raise Refused(400, "ERROR_PWD_NOT_MATCH", "Old password not match")
        hashed = password_hash(_legal(str(given["new_pwd"])))
        self.replace("dashboard_users", name, {"password_hash": hashed})

    def drop_dashboard_user(self, name: str) -> None:
        self._dashboard_user(name)
        if name == self.user:
            raise Refused(400, "NOT_ALLOWED", "Cannot delete self")
        self.remove("dashboard_users", name)

    def _dashboard_user(self, name: str) -> Json:
        if name not in self.tables["dashboard_users"]:
            raise Refused(404, "USER_NOT_FOUND", "username_not_found")
        return dict(self.tables["dashboard_users"][name])

    # ------------------------------------------------------------------ API keys
    def api_keys(self) -> list[Json]:
        return [_shown_key(name, key) for name, key in sorted(self.tables["api_keys"].items())]

    def api_key(self, name: str) -> Json:
        return _shown_key(name, self.row("api_keys", name))

    def add_api_key(self) -> Json:
        given, secret = self.json_body("name"), secrets.token_urlsafe(32)
        made = {
            "api_key": secrets.token_hex(8),
            "secret_hash": password_hash(secret),
            "role": _role(given.get("role", "administrator")),
            "enable": given.get("enable", True),
            "desc": given.get("desc", ""),
            "expired_at": given.get("expired_at", "infinity"),
            "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        taken = Refused(400, "BAD_REQUEST", "name_already_existed")
        self.insert("api_keys", {given["name"]: made}, taken)
        return _shown_key(given["name"], made) | {"api_secret": secret}

    def put_api_key(self, name: str) -> Json:
        fields = {k: v for k, v in self.json_body().items() if k in ("enable", "desc", "role")}
        if "role" in fields:
            _role(fields["role"])
        return _shown_key(name, self.replace("api_keys", name, fields))

    def drop_api_key(self, name: str) -> None:
        self.remove("api_keys", name)

    def _needs_authenticator(self) -> None:
        if self.node.anonymous:
            raise Refused(404, "NOT_FOUND", f"Authenticator '{AUTHN}' does not exist")


def _shown_user(name: str, user: Json) -> Json:
    return {"username": name, "description": user["description"], "role": "administrator"}


def _shown_key(name: str, key: Json) -> Json:
    shown = {k: v for k, v in key.items() if k != "secret_hash"}
    return {
        "name": name,
        "expired": False,
        "expired_at": "infinity",
    } | shown  # rows of older data lack the last field


def _role(role: str) -> str:
    if role not in API_ROLES:
        raise Refused(400, "BAD_REQUEST", "Role does not exist")
    return role


def _legal(password: str) -> str:
    """The rules for a new password of the dashboard (apps/emqx_dashboard/src/emqx_dashboard_admin.erl)."""
    if not 8 <= len(password) <= 64:
        raise Refused(400, "BAD_REQUEST", "The range of password length is 8~64")
    kinds = {"letter" if c.isalpha() else "digit" if c.isdigit() else "sign" for c in password}
    if len(kinds) < 2:
        said = (
            "must contain at least two different kind of characters from groups of letters, numbers"
        )
        raise Refused(400, "BAD_REQUEST", f"The password {said}, and special characters")
    return password
