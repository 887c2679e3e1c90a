"""Words for the sample data."""

from __future__ import annotations

from random import Random

FIRST = (
    "Ada",
    "Grace",
    "Linus",
    "Edsger",
    "Barbara",
    "Ken",
    "Margaret",
    "Niklaus",
    "Frances",
    "Donald",
)
LAST = (
    "Lovelace",
    "Hopper",
    "Torvalds",
    "Dijkstra",
    "Liskov",
    "Thompson",
    "Hamilton",
    "Wirth",
    "Allen",
    "Knuth",
)
CITIES = ("Zürich", "Taipei", "São Paulo", "Nairobi", "Kraków", "Montréal", "Hà Nội", "Reykjavík")
GOODS = ("pump", "valve", "sensor", "gasket", "bearing", "controller", "cable", "filter")


def person(random: Random) -> str:
    """A name."""
    return f"{random.choice(FIRST)} {random.choice(LAST)}"


def text(random: Random, count: int) -> str:
    """Some words, including umlauts."""
    return " ".join(random.choice(GOODS + CITIES) for _ in range(count))
