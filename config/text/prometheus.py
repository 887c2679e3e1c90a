"""Prometheus' text format (version 0.0.4): https://prometheus.io/docs/instrumenting/exposition_formats/."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from config.text.printable import visible

Sample = tuple[Mapping[str, str], float | None]


def gauges(families: Iterable[tuple[str, str, Iterable[Sample]]]) -> str:
    """Write gauges.

    Args:
        families: name, help text and samples of each. A sample is its labels and its value; without a value it is
            left out.
    """
    lines = []
    for name, help_text, samples in families:
        lines += [f"# HELP {name} {help_text}", f"# TYPE {name} gauge"]
        for labels, value in samples:
            if value is not None:
                text = ",".join(f'{label}="{_escaped(words)}"' for label, words in labels.items())
                lines.append(f"{name}{{{text}}} {value:.3f}")
    return "\n".join(lines) + "\n"


def _escaped(value: str) -> str:
    """A label's value, which ends neither its quotes nor its line."""
    return visible(value).replace("\\", "\\\\").replace('"', '\\"')
