"""`isa report`: the state of the platform and its history, as one page that can be sent to anyone."""

from __future__ import annotations

from pathlib import Path

import click

from cli.commands import options
from errors import PermanentError
from redaction import redact


@click.command()
@options.environment
@options.prints("operations.documents.report:Report")
@click.option(
    "--output", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
    help="File of the page. Default: isa-report-ENVIRONMENT.html.",
)  # fmt: skip
def report(environment: str, as_json: bool, output: Path | None) -> None:
    """Write one HTML page of proofs, backups, deploys, gates and findings."""
    from cli.printing.output import emit, say
    from config.loading import load
    from flows.report import collect
    from operations.report.html import as_html

    load(environment)  # a name that is none makes no file
    file = output or Path(f"isa-report-{environment}.html")
    if not file.absolute().parent.is_dir():
        raise click.BadParameter(f"directory {file.parent} does not exist", param_hint="--output")
    found = collect(environment)
    if as_json:
        emit(found.document())
    if output or not as_json:
        try:
            file.write_text(redact(as_html(found)), encoding="utf-8")
        except OSError as exc:
            raise PermanentError(f"{file} cannot be written: {exc.strerror}") from exc
        say(f"{file}: {found.sentence}", err=as_json)
    for words in found.unasked:
        say(f"sources that could not be reached: {words}", err=True)
