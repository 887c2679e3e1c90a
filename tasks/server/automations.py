"""Automations of the Prefect server: compares the declared ones with those on the server, and corrects the server.

They are matched by name, because the server accepts the same automation twice. `isa setup` and `isa doctor --fix` both
use this module.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import yaml
from prefect.client.orchestration import SyncPrefectClient
from prefect.events import DeploymentTriggerTypes
from prefect.events.schemas.automations import Automation, AutomationCore
from pydantic import TypeAdapter

from config.loading import ROOT
from tasks.server.api import connect, deployments, post
from tasks.server.deployed import present

FILE = ROOT / "deployments/automations.yaml"
# A message quotes what a run ended with, and that may quote a tenant's name. Mails are HTML (Apprise's default, Prefect
# names no other format), chats take `<!channel>`, `[x](http://…)` and `@all`: these characters are replaced in each
# value that a message quotes.
NEUTRAL = {"<": "‹", ">": "›", "[": "［", "]": "］", "@": "＠", "\n": " "}
# Characters of a value in a message: Discord takes 2000 in all, PagerDuty 1024 in a summary; longer ones are lost.
SUBJECT, BODY = 100, 600
_TRIGGER: TypeAdapter[DeploymentTriggerTypes] = TypeAdapter(DeploymentTriggerTypes)


@dataclass(frozen=True)
class Difference:
    """Differences between the server and the declarations.

    Attributes:
        missing: declared, but not on the server.
        changed: on the server with different content, with the declared content.
        surplus: duplicates of the same name, and those whose block is no longer set.
        off: names of those that someone switched off.
        wanted: number of all that are declared.
    """

    missing: tuple[AutomationCore, ...]
    changed: tuple[tuple[UUID, AutomationCore], ...]
    surplus: tuple[Automation, ...]
    off: tuple[str, ...]
    wanted: int

    def __bool__(self) -> bool:
        return bool(self.missing or self.changed or self.surplus)

    def __str__(self) -> str:
        parts = (
            ("missing", [one.name for one in self.missing]),
            ("different", [one.name for _, one in self.changed]),
            ("surplus", [one.name for one in self.surplus]),
        )
        found = "; ".join(f"{what}: {', '.join(names)}" for what, names in parts if names)
        return found or f"{self.wanted} are set up"

    def settle(self) -> str:
        """Correct the server; returns what was done."""
        with connect() as client:
            for one in self.missing:
                client.create_automation(one)
            for identity, one in self.changed:
                client.update_automation(identity, one)
            for surplus in self.surplus:
                client.delete_automation(surplus.id)
        done = (
            ("created", [one.name for one in self.missing]),
            ("changed", [one.name for _, one in self.changed]),
            ("removed", [one.name for one in self.surplus]),
        )
        return "; ".join(f"{what} {', '.join(names)}" for what, names in done if names)


def compare(blocks: Iterable[str]) -> Difference:
    """Compare the server's automations with the files.

    Args:
        blocks: for notifications, `TYPE/NAME`; one that the server does not have is left out.

    Raises:
        TemporaryError, PermanentError: the server does not answer, or refuses.
    """
    documents = declared()
    wanted = [*expand(documents, find_blocks(blocks)), *_triggers()]
    with connect() as client:
        there = _read(client)
    missing: list[AutomationCore] = []
    changed: list[tuple[UUID, AutomationCore]] = []
    surplus: list[Automation] = []
    off: list[str] = []
    for one in wanted:
        found = there.get(one.name, [])
        if not found:
            missing.append(one)
            continue
        first, *others = found
        surplus += others
        if not first.enabled:
            off.append(one.name)  # it may have been switched off on purpose: it stays so
        # the server neither tells nor takes later whose an automation is
        content = one.model_dump(exclude={"owner_resource"}) | {"enabled": first.enabled}
        target = AutomationCore.model_validate(content)
        if AutomationCore.model_validate(first.model_dump()) != target:
            changed.append((first.id, target))
    gone = {document["name"] for document in documents} - {one.name for one in wanted}
    surplus += [one for name in sorted(gone) for one in there.get(name, ())]
    return Difference(tuple(missing), tuple(changed), tuple(surplus), tuple(off), len(wanted))


def declared() -> list[dict[str, Any]]:
    """The documents of deployments/automations.yaml."""
    return list(yaml.safe_load(FILE.read_text(encoding="utf-8"))["automations"])


def expand(
    documents: Iterable[dict[str, Any]], blocks: dict[str, UUID]
) -> Iterator[AutomationCore]:
    """Expand documents: `notify` becomes one action for each block, and nothing if there is no block."""
    for document in documents:
        plain = {key: value for key, value in document.items() if key != "notify"}
        if "notify" in document:
            plain["actions"] = [_send(document["notify"], block) for block in blocks.values()]
        if plain["actions"]:
            yield AutomationCore.model_validate(plain)


def find_blocks(names: Iterable[str]) -> dict[str, UUID]:
    """Return those of the named blocks that the server has, `TYPE/NAME`, with their ids."""
    wanted = tuple(names)
    if not wanted:
        return {}
    body = {"block_documents": {"name": {"any_": [name.partition("/")[2] for name in wanted]}}}
    found = {
        f"{block['block_type']['slug']}/{block['name']}": UUID(block["id"])
        for block in post("/block_documents/filter", body)
    }
    return {name: found[name] for name in wanted if name in found}


# ---------------------------------------------------------------------- inside
def _send(message: dict[str, Any], block: UUID) -> dict[str, Any]:
    return {
        "type": "send-notification",
        "block_document_id": block,
        "subject": _neutral(message["subject"], SUBJECT),
        "body": _neutral("\n".join(message["body"]), BODY),
    }


def _neutral(template: str, limit: int) -> str:
    """A template for the server in which no value can form a link, a mention, an element or a line, or be too long."""
    filters = "".join(f"|replace({old!r}, {new!r})" for old, new in NEUTRAL.items())
    return re.sub(
        r"\{\{(.+?)\}\}",
        lambda found: f"{{{{ ({found[1].strip()})|string|truncate({limit}, True){filters} }}}}",
        template,
    )


def _triggers() -> Iterator[AutomationCore]:
    """Automations declared in prefect.yaml for deployments that exist: `prefect deploy` creates the same."""
    own = present().own
    for document in deployments():
        for words in document.get("triggers", ()):
            if document["name"] in own:
                trigger = _TRIGGER.validate_python(words)
                trigger.set_deployment_id(UUID(own[document["name"]]["id"]))
                yield trigger.as_automation()


def _read(client: SyncPrefectClient) -> dict[str, list[Automation]]:
    """Return all automations of the server by name, the oldest first."""
    found: dict[str, list[Automation]] = {}
    for automation in sorted(client.read_automations(), key=lambda a: str(a.id)):
        found.setdefault(automation.name, []).append(automation)
    return found
