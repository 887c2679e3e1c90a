"""Takes the right to write from every user of a member, and gives each back exactly the rules that he had.

The fence is `-@write` at the end of a user's commands, and of those of each of its selectors; passwords, keys and
channels stay as they are, so none is read out or set. What commands he had is kept by the member itself, in a user
who is off and has no password: whoever is killed in between leaves it to the next one, and a member that restarts
forgets fence and copy together. Rules come back in the order in which they were given, from Redis 7 on
(https://redis.io/docs/latest/operate/oss_and_stack/management/security/acl/). Tried on Valkey 9.1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

USER = "isa-restore"  # the only user that may write
KEPT = "isa-fenced:"
NO_WRITES = "-@write"


@dataclass(frozen=True)
class Commands:
    """What a user may do.

    Attributes:
        root: rules of its commands, in order.
        selectors: further rights, each in parentheses.
    """

    root: tuple[str, ...]
    selectors: tuple[str, ...]

    @property
    def fenced(self) -> bool:
        """Whether nothing is left to take away."""
        last = (
            *self.root[-1:],
            *(selector.strip("()").split(" ")[-1] for selector in self.selectors),
        )
        return all(rule == NO_WRITES for rule in last)

    def without_writes(self) -> tuple[str, ...]:
        """Rules that take the right to write from who has these."""
        closed = (f"{selector[:-1]} {NO_WRITES})" for selector in self.selectors)
        return (NO_WRITES, "clearselectors", *closed)

    def exactly(self) -> tuple[str, ...]:
        """Rules that make these of whatever commands a user has."""
        return ("nocommands", *self.root, "clearselectors", *self.selectors)


def close(client: Any) -> None:
    """Let no user of a member write, new connections and old ones alike.

    Args:
        client: of the member, as a user who may change users.
    """
    users = _users(client)
    for name, commands in users.items():
        # one who is fenced and was kept is what a killed run has left
        if not (name == USER or name.startswith(KEPT) or commands.fenced):
            _set(client, KEPT + name, "reset", *commands.exactly())
            _set(client, name, *commands.without_writes())


def reopen(client: Any) -> None:
    """Restore the rules of every user of a member, and remove isa's own users.

    Args:
        client: of the member, as a user who may change users.
    """
    users = _users(client)
    for kept in [name for name in users if name.startswith(KEPT)]:
        name = kept.removeprefix(KEPT)
        if name in users:  # who was deleted in between stays deleted
            _set(client, name, *users[kept].exactly())
        client.execute_command("ACL DELUSER", kept)
    client.execute_command("ACL DELUSER", USER)


# ---------------------------------------------------------------------- inside
def _set(client: Any, name: str, *rules: str) -> None:
    """All of a command's rules take effect at the same time, or none."""
    client.execute_command("ACL SETUSER", name, *rules)


def _users(client: Any) -> dict[str, Commands]:
    found = {}
    for line in client.execute_command("ACL LIST"):
        _, name, *words = str(line).split(" ")
        rules: list[str] = []
        for word in words:
            if rules and rules[-1].startswith("(") and not rules[-1].endswith(")"):
                rules[-1] += f" {word}"
            else:
                rules.append(word)
        found[name] = Commands(
            tuple(rule for rule in rules if rule[:1] in ("+", "-")),
            tuple(rule for rule in rules if rule.startswith("(")),
        )
    return found
