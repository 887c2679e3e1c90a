"""Removes the right to write from every user of a member, and restores exactly the user's old rules afterwards.

The fence is `-@write` after a user's command rules, and after those of each selector. Passwords, keys and channels are
neither read nor changed.

The old command rules are kept in the member itself, in a disabled user without a password. So the run after a killed
one can restore them, and a member that restarts loses both the fence and the copy. Since Redis 7 rules are listed in
the order in which they were set (https://redis.io/docs/latest/operate/oss_and_stack/management/security/acl/). Tried on
Valkey 9.1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

USER = "isa-restore"  # the only user that may write
KEPT = "isa-fenced:"
NO_WRITES = "-@write"


@dataclass(frozen=True)
class Commands:
    """The command rules of a user.

    Attributes:
        root: command rules, in order.
        selectors: selectors, each in parentheses.
    """

    root: tuple[str, ...]
    selectors: tuple[str, ...]

    @property
    def fenced(self) -> bool:
        """Whether the user is fenced already."""
        last_rules = (
            *self.root[-1:],
            *(selector.strip("()").split(" ")[-1] for selector in self.selectors),
        )
        return all(rule == NO_WRITES for rule in last_rules)

    def without_writes(self) -> tuple[str, ...]:
        """Rules that remove the right to write from a user with these rules."""
        closed = (f"{selector[:-1]} {NO_WRITES})" for selector in self.selectors)
        return (NO_WRITES, "clearselectors", *closed)

    def exactly(self) -> tuple[str, ...]:
        """Rules that set exactly these commands, whatever the user has now."""
        return ("nocommands", *self.root, "clearselectors", *self.selectors)


def close(client: Any) -> None:
    """Remove the right to write from every user of a member. It applies to existing connections too.

    Args:
        client: connected to the member as a user that may change users.
    """
    users = _users(client)
    for name, commands in users.items():
        # a user that is fenced already was fenced by a killed run, which also kept a copy
        if not (name == USER or name.startswith(KEPT) or commands.fenced):
            _set(client, KEPT + name, "reset", *commands.exactly())
            _set(client, name, *commands.without_writes())


def reopen(client: Any) -> None:
    """Restore the rules of every user of a member, and remove isa's own users.

    Args:
        client: connected to the member as a user that may change users.
    """
    users = _users(client)
    for copy in [name for name in users if name.startswith(KEPT)]:
        name = copy.removeprefix(KEPT)
        if name in users:  # a user that was deleted since stays deleted
            _set(client, name, *users[copy].exactly())
        client.execute_command("ACL DELUSER", copy)
    client.execute_command("ACL DELUSER", USER)


# ---------------------------------------------------------------------- inside
def _set(client: Any, name: str, *rules: str) -> None:
    """Set rules of a user. Redis applies all of them at once, or none."""
    client.execute_command("ACL SETUSER", name, *rules)


def _users(client: Any) -> dict[str, Commands]:
    users = {}
    for line in client.execute_command("ACL LIST"):
        _, name, *tokens = str(line).split(" ")
        rules: list[str] = []
        for word in tokens:
            if rules and rules[-1].startswith("(") and not rules[-1].endswith(")"):
                rules[-1] += f" {word}"
            else:
                rules.append(word)
        users[name] = Commands(
            tuple(rule for rule in rules if rule[:1] in ("+", "-")),
            tuple(rule for rule in rules if rule.startswith("(")),
        )
    return users
