"""The table of a running run, for a terminal."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from cluster.command import Cancelled
from errors import InputError, IsaError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from operations.documents import runs as documents
    from operations.runner.progress import NodeProgress
    from tasks.server.runs import Ended, Run

R = TypeVar("R", bound="documents.Run")
N = TypeVar("N")


def results(rows: Iterable[Mapping[str, Any]], result: Callable[..., N]) -> tuple[N, ...]:
    """The results of nodes, from the rows of a run's table.

    Args:
        rows: of the table.
        result: makes one from its name, outcome, seconds and reason.
    """
    from operations.runner.walk import NOT_ATTEMPTED

    return tuple(
        result(
            name=row["name"],
            outcome=row["outcome"] or NOT_ATTEMPTED,
            seconds=row["seconds"],
            reason=row["note"],
        )
        for row in rows
    )


class LiveNodes:
    """One line per node that changes in place on a terminal, or one line per change elsewhere."""

    def __init__(self, *, quiet: bool) -> None:
        from rich.live import Live

        from cli.printing.tables import console, nodes_table

        self._console = console(stderr=True)
        self._table = nodes_table
        self._shown: dict[str, str] = {}
        self._rows: list[dict[str, Any]] = []
        self._quiet = quiet
        live = self._console.is_terminal and not quiet
        self._live = (
            Live(nodes_table([]), console=self._console, refresh_per_second=4) if live else None
        )

    def __enter__(self) -> LiveNodes:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def announce(self, words: str) -> None:
        """Print a line above the table."""
        if not self._quiet:
            self._console.print(words, highlight=False, soft_wrap=True)

    def follow(
        self,
        deployment: str,
        parameters: dict[str, Any],
        artifact_key: str,
        idempotency_key: str | None,
        paused: Callable[[Run], None] = lambda run: None,
    ) -> Ended:
        """Start a flow run of the Prefect server and show its table until it ends.

        Args:
            deployment: `flow/deployment`.
            parameters: of the flow.
            artifact_key: of its table.
            idempotency_key: the same key returns the same run.
            paused: called once if the run waits for an approval.
        """
        from tasks.server.runs import follow, start_run

        run = start_run(deployment, parameters, idempotency_key=idempotency_key)
        self.announce(f"flow run {run.name}: {run.url}")
        try:
            return follow(run, artifact_key, self.rows, self.announce, paused)
        except KeyboardInterrupt:
            self.announce(f"stopped following the run; it continues, cancel it at {run.url}")
            raise

    def here(self, work: Callable[[], R], from_rows: Callable[[list[dict[str, Any]]], R]) -> R:
        """Do the work of a run in this process.

        Args:
            work: gives its report.
            from_rows: the report as far as the table tells. A run that fails before it can report prints it with
                `--json`, as one of a Prefect server does.
        """
        began = time.monotonic()
        try:
            return work()
        except (InputError, Cancelled):
            raise
        except IsaError as exc:
            if not self._quiet:
                raise
            seconds = round(time.monotonic() - began, 2)
            return replace(from_rows(self._rows), seconds=seconds, message=str(exc))

    def publish(self, lines: list[NodeProgress]) -> None:
        """Show the progress of a deploy in this process."""
        from operations.runner.progress import as_rows

        self.rows(as_rows(lines))

    def rows(self, rows: list[dict[str, Any]]) -> None:
        """Show the rows of the table."""
        self._rows = rows
        if self._live:
            self._live.update(self._table(rows))
            return
        for row in rows:
            state = row["outcome"] or row["phase"]
            if self._shown.get(row["name"], "waiting") != state:
                self._shown[row["name"]] = state
                self.announce(
                    f"{row['name']:<16} {state:<12} {row['seconds']:6.1f} s  {row['note']}"
                )
