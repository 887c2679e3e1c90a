"""SVG pictures with real text, for light and dark pages, in colours that everyone can distinguish.

matplotlib draws it. It is imported on first use, since that takes a second.
"""

from __future__ import annotations

import base64
import io
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from markupsafe import Markup, escape

from redaction import shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Told apart by colour-blind eyes (Okabe and Ito, https://jfly.uni-koeln.de/color/); the word always stands beside it.
INK, PAPER = "#1b2126", "#ffffff"
GREEN, BLUE, ORANGE, RED, PURPLE, GREY = (
    "#009e73", "#0072b2", "#e69f00", "#d55e00", "#cc79a7", "#8a8f94",
)  # fmt: skip
COLOURS = {
    **dict.fromkeys(("installed", "install", "pass", "fresh", "ready", "ok", "complete", "completed"), GREEN),
    **dict.fromkeys(("upgraded", "upgrade"), BLUE),
    **dict.fromkeys(("skipped", "partial", "stale", "degraded", "warning", "drifted", "never"), ORANGE),
    **dict.fromkeys(("failed", "fail", "failing", "down", "bad"), RED),
    **dict.fromkeys(("error", "recover", "unfinished", "unknown", "cancelled", "crashed"), PURPLE),
}  # fmt: skip
STYLE: Any = {
    "svg.fonttype": "none",  # text that can be searched and selected
    "svg.hashsalt": "isa-cloud",
    "text.parse_math": False,  # a dollar in an engine's message is a dollar
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "legend.frameon": False,
    **{f"{part}.color": INK for part in ("text", "xtick", "ytick")},
    **{f"axes.{part}": INK for part in ("edgecolor", "labelcolor", "titlecolor")},
    "axes.facecolor": "none",
}
# A letter that matplotlib's own font has not is measured by another; in SVG the reader's font draws it.
warnings.filterwarnings("ignore", message=r"Glyph \d+ .* missing from")
WIDTH = 9.6  # inches of 72 points: what a page of A4 holds at a glance
DAY = timedelta(days=1)


@dataclass(frozen=True)
class Drawing:
    """A picture.

    Attributes:
        svg: its text, on no ground.
        words: what it shows, for who cannot see it.
    """

    svg: str
    words: str

    @property
    def inline(self) -> Markup:
        """For a page of our own: lines and text take the page's colour, so that it may be dark."""
        label = f'<svg role="img" aria-label="{escape(shown(self.words))}" '
        return Markup(self.svg.replace("<svg ", label, 1).replace(INK, "currentColor"))

    @property
    def address(self) -> str:
        """For Prefect's UI, which shows pictures by their address only. On paper, since it may be dark."""
        sheet = re.sub(
            r"(<svg [^>]*>)",
            rf'\1<rect width="100%" height="100%" fill="{PAPER}"/>',
            self.svg,
            count=1,
        )
        data = base64.b64encode(sheet.encode()).decode()
        return f"data:image/svg+xml;base64,{data}"


class Margins(NamedTuple):
    """Room around the axes, inches: fixed, so that pictures below one another line up."""

    left: float
    right: float
    top: float
    bottom: float


def drawn(
    draw: Callable[[Figure], None],
    description: str,
    height: float,
    margins: Margins,
    width: float = WIDTH,
) -> Drawing:
    """Draw on axes of a height, inches."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    # no pyplot: it keeps figures, and is not for threads
    with rc_context(STYLE):
        total_height = height + margins.top + margins.bottom
        figure = Figure(figsize=(width, total_height))
        figure.subplots_adjust(
            left=margins.left / width, right=1 - margins.right / width,
            top=1 - margins.top / total_height, bottom=margins.bottom / total_height,
        )  # fmt: skip
        draw(figure)
        _show_names(figure)
        target = io.StringIO()
        figure.savefig(
            target, format="svg", transparent=True, metadata={"Date": None, "Creator": None}
        )
    text = target.getvalue()
    text = text[text.index("<svg") :]
    # several stand in one page: names of groups would be there twice, and a fixed size does not fit a telephone
    text = re.sub(r'<g id="[a-zA-Z0-9]+_\d+">', "<g>", text)
    text = re.sub(
        r'(<svg [^>]*?)width="([\d.]+)pt" height="[\d.]+pt"',
        rf'\1width="{width * 96:.0f}"',
        text,
        count=1,
    )
    return Drawing(
        re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", text, flags=re.DOTALL), description
    )


def mark(marker: str, colour: str, face: str = "") -> dict[str, Any]:
    """How points are drawn, without a line between them: no line says what was in between."""
    return {
        "marker": marker, "linestyle": "none", "markersize": 5, "markeredgewidth": 1,
        "markeredgecolor": colour, "markerfacecolor": face or colour,
    }  # fmt: skip


def dates(axes: Axes, times: Sequence[datetime], otherwise: str) -> None:
    """Ticks of an axis of time (UTC), with room at both ends; words where there is nothing to show."""
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    if not times:
        axes.text(0.5, 0.5, otherwise, ha="center", va="center", transform=axes.transAxes)
        axes.set_xticks([])
        return
    first, last = min(times), max(times)
    pad = max((last - first) * 0.05, timedelta(minutes=2))
    axes.set_xlim(untyped(first - pad), untyped(last + pad))
    locator: Any = AutoDateLocator(minticks=2, maxticks=5)  # type: ignore[no-untyped-call]
    formats = ["%Y", "%b %Y", "%-d %b", "%H:%M", "%H:%M", "%H:%M:%S"]
    named = ["", "%Y", "%-d %b", "%-d %b", "%H:%M", "%H:%M"]  # of a tick where a unit begins anew
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(
        ConciseDateFormatter(  # type: ignore[no-untyped-call]
            locator, tz="UTC", formats=formats, zero_formats=named, show_offset=last - first < DAY
        )
    )


def untyped(value: Any) -> Any:
    """Times are values to matplotlib, which its types do not say."""
    return value


def _show_names(figure: Figure) -> None:
    """Let no text have a line or a control character of its own, which XML cannot hold, nor a secret."""
    from matplotlib.text import Text
    from matplotlib.ticker import FuncFormatter

    for text in figure.findobj(Text):
        text.set_text(shown(text.get_text()))
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        named = axis.get_major_formatter()
        if isinstance(
            named, FuncFormatter
        ):  # ticks whose labels were given get them when they are drawn
            axis.set_major_formatter(FuncFormatter(lambda x, at, f=named: shown(f(x, at))))
