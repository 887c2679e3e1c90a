"""Automations of the Prefect server: what the files declare is compared with what is there, and brought about.

By name, since the server takes the same automation twice. `isa setup` and `isa doctor --fix` both end here.
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
from tasks.deployed import present
from tasks.server import connect, deployments, post

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
    """What is not as declared.

    Attributes:
        missing: that the server has not.
        changed: that it has with another content, with what they shall be.
        surplus: a second one of the same name, and those for which no block is set any more.
        off: names of those that somebody switched off.
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
            ("not as declared", [one.name for _, one in self.changed]),
            ("one too many", [one.name for one in self.surplus]),
        )
        found = "; ".join(f"{what}: {', '.join(names)}" for what, names in parts if names)
        return found or f"{self.wanted} are there"

    def settle(self) -> str:
        """Make the server's as declared; says what was done."""
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
    """What the server has beside what the files declare.

    Args:
        blocks: through which is notified, `TYPE/NAME`; one that is not on the server is left out.

    Raises:
        TemporaryError, PermanentError: the server cannot be asked.
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
            off.append(one.name)  # somebody may have done it on purpose: it stays so
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
    """What documents mean: `notify` becomes one action for each block, and nothing where there is no block."""
    for document in documents:
        plain = {key: value for key, value in document.items() if key != "notify"}
        if "notify" in document:
            plain["actions"] = [_send(document["notify"], block) for block in blocks.values()]
        if plain["actions"]:
            yield AutomationCore.model_validate(plain)


def find_blocks(names: Iterable[str]) -> dict[str, UUID]:
    """Those of the named blocks that the server has, `TYPE/NAME`, with their ids."""
    wanted = tuple(names)
    if not wanted:
        return {}
    body = {"block_documents": {"name": {"any_": [name.partition("/")[2] for name in wanted]}}}
    found = {
        f"{one['block_type']['slug']}/{one['name']}": UUID(one["id"])
        for one in post("/block_documents/filter", body)
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
    """A template of the server's in which no value makes a link, a mention, an element or a line, or is too long."""
    filters = "".join(f"|replace({old!r}, {new!r})" for old, new in NEUTRAL.items())
    return re.sub(
        r"\{\{(.+?)\}\}",
        lambda found: f"{{{{ ({found[1].strip()})|string|truncate({limit}, True){filters} }}}}",
        template,
    )


def _triggers() -> Iterator[AutomationCore]:
    """Those of prefect.yaml, whose deployments are there: `prefect deploy` makes the same of them."""
    own = present().own
    for document in deployments():
        for words in document.get("triggers", ()):
            if document["name"] in own:
                trigger = _TRIGGER.validate_python(words)
                trigger.set_deployment_id(UUID(own[document["name"]]["id"]))
                yield trigger.as_automation()


def _read(client: SyncPrefectClient) -> dict[str, list[Automation]]:
    """All of the server's by name, the oldest first."""
    found: dict[str, list[Automation]] = {}
    for one in sorted(client.read_automations(), key=lambda a: str(a.id)):
        found.setdefault(one.name, []).append(one)
    return found
