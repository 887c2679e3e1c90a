"""The table of a run while it goes, for whoever watches it from a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from flows.runs import Ended, Run
    from operations.runner.progress import NodeProgress


def in_process(report: Mapping[str, Any]) -> dict[str, Any]:
    """The document of a run in this process: that of a flow run (`flows.runs.Ended.as_json`), which has no id here."""
    return {**report, "flow_run": ""}


class LiveNodes:
    """One line per node that changes in place on a terminal, or one line per change elsewhere."""

    def __init__(self, *, quiet: bool) -> None:
        from rich.live import Live

        from cli.tables import console, nodes_table

        self._console = console(stderr=True)
        self._table = nodes_table
        self._shown: dict[str, str] = {}
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
        """Say something above the table."""
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
            idempotency_key: the same one returns the same run.
            paused: gets told, once, that it waits for somebody's answer.
        """
        from flows.runs import follow, start_run

        run = start_run(deployment, parameters, idempotency_key=idempotency_key)
        self.announce(f"flow run {run.name}: {run.url}")
        try:
            return follow(run, artifact_key, self.rows, self.announce, paused)
        except KeyboardInterrupt:
            self.announce(f"no longer following; the run goes on, cancel it at {run.url}")
            raise

    def publish(self, lines: list[NodeProgress]) -> None:
        """Show the progress of a deploy in this process."""
        from operations.runner.progress import as_rows

        self.rows(as_rows(lines))

    def rows(self, rows: list[dict[str, Any]]) -> None:
        """Show the rows of the table."""
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
