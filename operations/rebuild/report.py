"""How a rebuild ended, as data and as text."""

from __future__ import annotations

from dataclasses import dataclass

from operations.documents import runs as documents
from operations.runner.walk import NodeResult


@dataclass(frozen=True)
class RebuildReport:
    """How a rebuild ended.

    Attributes:
        component: name.
        id: of the rebuild.
        seconds: wall time.
        steps: one result each.
        set: backup that was restored, or taken; "" if none.
        aside: retained old volumes.
        changed: whether anything has changed.
        shut: why the fence could not be removed; "" if it was, or if there is nothing to write to.
    """

    component: str
    id: str
    seconds: float
    steps: tuple[NodeResult, ...]
    set: str
    aside: tuple[str, ...]
    changed: bool
    shut: str = ""

    @property
    def state(self) -> str:
        """`completed`, or `failed`."""
        return "completed" if all(step.good for step in self.steps) else "failed"

    @property
    def summary(self) -> str:
        """The resulting state, in a few sentences."""
        failed = next((step for step in self.steps if not step.good), None)
        if failed is None:
            volumes = f"; {len(self.aside)} old volumes are retained" if self.aside else ""
            return f"{self.component} rebuilt in {self.seconds:.1f} s{volumes}"
        message = f"{failed.name}: {failed.reason}. "
        if self.shut:
            message += f"WRITES ARE STILL BLOCKED ({self.shut}): run the same command again to allow them. "
        if not self.changed:
            rest = (
                "Nothing else was changed"
                if self.shut
                else "Nothing was changed; writers have access"
            )
            return message + rest
        copies = [f"the backup {self.set}"] if self.set else []
        copies += [f"the old volumes {', '.join(self.aside)}"] if self.aside else []
        where = f"; nothing is lost: {' and '.join(copies)} are retained" if copies else ""
        return (
            f"{message}The same command continues here{where}; "
            f"`isa rebuild undo {self.component}` puts its old volumes back"
        )

    def document(self) -> documents.Rebuild:
        """As `isa rebuild --json` prints it."""
        return documents.Rebuild(
            state=self.state,
            seconds=round(self.seconds, 2),
            message=self.summary,
            component=self.component,
            rebuild=self.id,
            steps=tuple(documents.RebuildStep(**vars(step)) for step in self.steps),
            backup=self.set,
            retained_volumes=self.aside,
        )
