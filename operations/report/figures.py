"""Pictures of the platform's history: graph, timeline, verifications, sizes and durations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from operations.report.history import BackupPoint, ComponentHistory, Trend
from operations.report.report import outcome
from operations.report.svg import (
    BLUE,
    COLOURS,
    GREY,
    INK,
    ORANGE,
    PAPER,
    Drawing,
    Margins,
    dates,
    drawn,
    mark,
    untyped,
)
from operations.runner.progress import NodeProgress
from redaction import shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

VERDICTS = {"pass": "o", "partial": "D", "fail": "X", "error": "^", "unreadable": "s"}
LEGEND = (
    "Backups: ● full, ○ incremental, ✖ partial; dashed: trend of full backups. Verifications: ● pass, ◆ partial, ✖ "
    "fail, ▲ error, ■ unreadable. Times are UTC, every axis begins at zero."
)
NOTE = 60  # characters of a reason that a picture has room for


def graph(needs: Mapping[str, Sequence[str]], outcomes: Mapping[str, str], what: str) -> Drawing:
    """The graph of a deploy, from left to right.

    Args:
        needs: node → what it needs, each after its needs.
        outcomes: node → its outcome, or what is planned for it.
        what: the picture shows.
    """
    rank: dict[str, int] = {}
    for node, needed in needs.items():
        rank[node] = max((rank[need] + 1 for need in needed), default=0)
    columns = [
        [n for n in needs if rank[n] == r] for r in range(max(rank.values(), default=-1) + 1)
    ]
    tallest = max(map(len, columns), default=1)
    place = {
        node: (rank[node] * 1.6, (len(column) - 1) / 2 - row)
        for column in columns
        for row, node in enumerate(column)
    }

    def draw(figure: Figure) -> None:
        from matplotlib.patches import FancyBboxPatch

        axes = figure.add_subplot()
        axes.set_axis_off()
        axes.set_xlim(-0.65, 1.6 * max(len(columns) - 1, 2) + 0.65)
        axes.set_ylim(-tallest / 2, tallest / 2)
        for node, (x, y) in place.items():
            for needed in needs[node]:
                start = place[needed]
                arrow = {
                    "arrowstyle": "-|>",
                    "color": GREY,
                    "linewidth": 0.8,
                    "shrinkA": 0,
                    "shrinkB": 0,
                }
                axes.annotate("", (x - 0.56, y), (start[0] + 0.56, start[1]), arrowprops=arrow)
            word = outcomes.get(node, "")
            colour = COLOURS.get(word, GREY)
            for fill, alpha in ((colour, 0.18), ("none", 1.0)):
                axes.add_patch(
                    FancyBboxPatch(
                        (x - 0.53, y - 0.33), 1.06, 0.66, "round,pad=0.02,rounding_size=0.08",
                        facecolor=fill, edgecolor=colour, alpha=alpha, linewidth=1.4, mutation_aspect=1.0,
                    )
                )  # fmt: skip
            axes.text(x, y + 0.13, node, ha="center", va="center", fontweight="bold")
            axes.text(x, y - 0.15, word, ha="center", va="center")

    states = "; ".join(f"{node}: {outcomes.get(node, '')}" for node in needs)
    return drawn(draw, f"{what}. {states}", 0.52 * max(tallest, 2), Margins(0, 0, 0, 0), width=7.2)


def timeline(nodes: Sequence[NodeProgress], what: str) -> Drawing:
    """When each node of a deploy was running, and how it ended.

    Args:
        nodes: lines of its table.
        what: the picture shows.
    """

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        end = max((node.began + node.seconds for node in nodes), default=0.0) or 1.0
        for row, node in enumerate(nodes):
            word = outcome(node)
            label = (
                f"{word}, {node.seconds:.1f} s"
                if node.seconds
                else _short(shown(f"{word}: {node.note}"))
            )
            if node.seconds:
                hatch = "////" if word in ("failed", "unfinished") else None
                axes.barh(
                    row, node.seconds, left=node.began, height=0.62, color=COLOURS.get(word, GREY),
                    hatch=hatch, edgecolor=PAPER, linewidth=0,
                )  # fmt: skip
            x = node.began + node.seconds if node.seconds else 0.0
            axes.text(x + 0.01 * end, row, label, va="center")
        axes.set_yticks(range(len(nodes)), [node.name for node in nodes])
        axes.tick_params("y", length=0)
        axes.set_ylim(max(len(nodes), 1) - 0.4, -0.6)
        axes.set_xlim(0, end * 1.3)  # room for the words
        axes.set_xlabel("seconds since the plan was ready")

    states = "; ".join(f"{node.name}: {outcome(node)}, {node.seconds:.0f} s" for node in nodes)
    return drawn(
        draw, f"{what}. {states}", 0.24 * max(len(nodes), 1), Margins(1.15, 0.1, 0.05, 0.45)
    )


def proofs(histories: Sequence[ComponentHistory]) -> Drawing:
    """Every verdict on every component, by date."""

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        seen: dict[str, None] = {}
        for row, history in enumerate(histories):
            for verdict, marker in VERDICTS.items():
                times = [proof.begun for proof in history.proofs if proof.verdict == verdict]
                if times:
                    seen[verdict] = None
                    axes.plot(
                        untyped(times),
                        [row] * len(times),
                        **mark(marker, COLOURS.get(verdict, GREY)),
                    )
            if history.proofs:
                last = history.proofs[-1]
                axes.annotate(
                    f"{last.verdict} {last.level}".strip(), (1, row), (6, 0), ("axes fraction", "data"),
                    "offset points", va="center", annotation_clip=False,
                )  # fmt: skip
        axes.set_yticks(range(len(histories)), [history.component for history in histories])
        axes.set_ylim(max(len(histories), 1) - 0.5, -0.5)
        axes.tick_params("y", length=0)
        axes.grid(axis="y", color=GREY, alpha=0.25, linewidth=0.6)
        axes.annotate("last verdict", (1, 1), (6, 4), "axes fraction", "offset points")
        dates(
            axes,
            [proof.begun for history in histories for proof in history.proofs],
            "not verified yet",
        )
        handles = [
            axes.plot([], [], label=verdict, **mark(VERDICTS[verdict], COLOURS.get(verdict, GREY)))[0]
            for verdict in VERDICTS if verdict in seen
        ]  # fmt: skip
        if handles:
            axes.legend(
                handles=handles, loc="lower left", bbox_to_anchor=(0, 1), ncols=len(handles), borderaxespad=0.2,
            )  # fmt: skip

    verdicts = "; ".join(
        f"{history.component}: {history.proofs[-1].verdict if history.proofs else 'none'}"
        for history in histories
    )
    description = f"Verifications by date, the last verdict of each. {verdicts}"
    return drawn(draw, description, 0.24 * max(len(histories), 1), Margins(0.9, 0.85, 0.3, 0.4))


def backups(history: ComponentHistory) -> Drawing:
    """Size, duration and verification of a component's backups over time, with the trend if there is one."""
    unit, factor = _unit(max((b.bytes_stored for b in history.backups), default=0))
    figures: tuple[tuple[str, Callable[[BackupPoint], float], float], ...] = (
        (f"stored ({unit})", lambda b: b.bytes_stored, factor),
        ("backup (s)", lambda b: b.seconds, 1),
    )

    def draw(figure: Figure) -> None:
        panels = figure.subplots(1, 3)
        for axes, (title, value, scale) in zip(panels, figures, strict=False):
            axes.set_title(title)
            for kind, style in _KINDS.items():
                chosen = [b for b in history.backups if _kind(b) == kind]
                axes.plot(
                    untyped([b.begun for b in chosen]), [value(b) / scale for b in chosen], **style
                )
            line = history.trend(value)
            if line:
                _line(axes, line, scale)
            dates(axes, [b.begun for b in history.backups], "no set")
        panels[2].set_title("proof (s)")
        measured = [p for p in history.proofs if p.seconds is not None]
        for proof in measured:
            style = mark(VERDICTS[proof.verdict], COLOURS.get(proof.verdict, GREY))
            panels[2].plot(untyped([proof.begun]), [proof.seconds or 0.0], **style)
        dates(panels[2], [p.begun for p in measured], "no proof")
        for axes in panels:
            axes.locator_params("y", nbins=4)
            axes.set_ylim(0, max(axes.get_ylim()[1] * 1.1, 0.001))
            axes.grid(axis="y", color=GREY, alpha=0.25, linewidth=0.6)

    counts = f"{len(history.backups)} backups and {len(history.proofs)} verifications"
    description = f"{history.component}: {counts} over time"
    return drawn(draw, description, 0.95, Margins(0.45, 0.1, 0.25, 0.35))


# ---------------------------------------------------------------------- inside
_KINDS = {
    "full": mark("o", BLUE),
    "incremental": mark("o", BLUE, "none"),
    "partial": mark("X", ORANGE),
}


def _kind(point: BackupPoint) -> str:
    return "partial" if point.outcome == "partial" else point.kind


def _line(axes: Axes, trend_line: Trend, scale: float) -> None:
    ends = [trend_line.first / scale, trend_line.last / scale]
    axes.plot(
        untyped([trend_line.begun, trend_line.ended]), ends, color=INK, linewidth=1, linestyle="--"
    )


def _unit(size: float) -> tuple[str, float]:
    units = ("B", "KiB", "MiB", "GiB", "TiB")
    power = 0
    while size >= 1024 and power < len(units) - 1:
        size, power = size / 1024, power + 1
    return units[power], 1024.0**power


def _short(text: str) -> str:
    text = text.removesuffix(": ")
    return text if len(text) <= NOTE else f"{text[: NOTE - 1]}…"
