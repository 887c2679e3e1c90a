"""The reference of the JSON documents is the one that their models give."""

from __future__ import annotations

from dataclasses import fields

import click
import jsonschema

from cli.commands.options import JsonOption
from cli.commands.verbs import Verbs
from cli.json_reference import PAGE, SCHEMAS, documents, files
from cli.main import isa
from operations.documents.base import Document, meanings
from tests.contract import document_of


def test_the_committed_files_are_up_to_date() -> None:
    made = files()
    there = {file: file.read_text(encoding="utf-8") for file in (PAGE, *SCHEMAS.iterdir())}
    assert there == made, "run: python -m cli.json_reference"


def test_every_command_with_json_says_what_it_prints() -> None:
    def options(command: click.Command) -> list[click.Parameter]:
        inner = getattr(command, "commands", {}) if isinstance(command, Verbs) else {}
        if isinstance(command, click.Group):
            context = click.Context(command)
            inner = {
                name: command.get_command(context, name) for name in command.list_commands(context)
            }
        return [*command.params, *(one for part in inner.values() for one in options(part))]

    found = [option for option in options(isa) if "--json" in option.opts]
    assert len(found) > 20
    assert all(isinstance(option, JsonOption) for option in found)


def kinds(document: type[Document]) -> set[type[Document]]:
    """The classes below a class."""
    return {document, *(one for part in document.__subclasses__() for one in kinds(part))}


def test_every_key_has_a_meaning_and_no_meaning_is_of_a_key_that_is_gone() -> None:
    documents()  # imports them all
    for kind in kinds(Document):
        assert {field.name for field in fields(kind)} == set(meanings(kind)), kind


def test_schemas_are_schemas_and_take_no_other_key() -> None:
    for kind in documents().values():
        schema = kind.schema()
        jsonschema.Draft202012Validator.check_schema(schema)
        for part in (schema, *schema.get("$defs", {}).values()):
            assert part["additionalProperties"] is False
            assert part["required"] == list(part["properties"])


def test_the_document_of_a_command_is_found_by_its_words() -> None:
    assert document_of(["rebuild", "undo", "nats"]) == "isa rebuild undo"
    assert document_of(["rebuild", "nats", "--env", "sandbox", "--plan"]) == "isa rebuild --plan"
    assert document_of(["sandbox", "status", "--name", "x"]) == "isa sandbox status"
    assert document_of(["deploy", "--only", "nats"]) == "isa deploy"
