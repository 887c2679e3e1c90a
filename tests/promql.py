"""As much of PromQL as our rules and dashboard use, on samples of one moment; anything else is an error.

The grammar is Prometheus' own (promql-parser); the arithmetic is this: a scalar is a number, a vector maps label sets
to numbers, a comparison filters unless it says `bool`.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from typing import Any

import promql_parser as parser

Labels = frozenset[tuple[str, str]]
Vector = dict[Labels, float]
Samples = dict[str, Vector]
ARITHMETIC: dict[str, Callable[[float, float], float]] = {
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
}
COMPARISON: dict[str, Callable[[float, float], bool]] = {">": operator.gt, "==": operator.eq}
AGGREGATE: dict[str, Callable[[Any], float]] = {"sum": sum, "max": max}
SAMPLE = re.compile(r"(?P<name>\w+)\{(?P<labels>[^}]*)\} (?P<value>\S+)")


def samples(text: str) -> Samples:
    """Read Prometheus' text format."""
    found: Samples = {}
    for line in text.splitlines():
        if match := SAMPLE.fullmatch(line):
            labels = frozenset(re.findall(r'(\w+)="([^"]*)"', match["labels"]))
            found.setdefault(match["name"], {})[labels] = float(match["value"])
    return found


def selectors(expression: str) -> list[tuple[str, set[str]]]:
    """Metrics that an expression asks for, each with the labels that it chooses by."""
    found: list[tuple[str, set[str]]] = []

    def visit(node: Any) -> bool:
        if isinstance(node, parser.VectorSelector):
            found.append((node.name or "", {one.name for one in node.matchers.matchers}))
        return True

    parser.walk(parser.parse(expression), visit)
    return found


def evaluate(expression: str, there: Samples, now: float) -> float | Vector:
    """What Prometheus would make of it."""
    return _value(parser.parse(expression), there, now)


def _value(node: Any, there: Samples, now: float) -> float | Vector:
    match type(node).__name__:
        case "NumberLiteral":
            return float(node.val)
        case "ParenExpr":
            return _value(node.expr, there, now)
        case "VectorSelector":
            found = there.get(node.name, {})
            return {ls: v for ls, v in found.items() if _chosen(dict(ls), node.matchers.matchers)}
        case "Call" if node.func.name == "time":
            return now
        case "Call" if node.func.name == "absent":
            return {} if _value(node.args[0], there, now) else {frozenset(): 1.0}
        case "AggregateExpr":
            inner = _value(node.expr, there, now)
            assert isinstance(inner, dict)
            return {frozenset(): AGGREGATE[str(node.op)](inner.values())} if inner else {}
        case "BinaryExpr":
            both = _value(node.lhs, there, now), _value(node.rhs, there, now)
            returns_bool = node.modifier is not None and node.modifier.return_bool
            return _binary(str(node.op), *both, returns_bool=returns_bool)
    raise NotImplementedError(f"{type(node).__name__}: {node.prettify()}")


def _chosen(labels: dict[str, str], matchers: Any) -> bool:
    def fits(one: Any) -> bool:
        found = labels.get(one.name, "")
        return (
            found == one.value if "Equal" in str(one.op) else bool(re.fullmatch(one.value, found))
        )

    return all(fits(one) for one in matchers)


def _binary(
    op: str, left: float | Vector, right: float | Vector, *, returns_bool: bool
) -> float | Vector:
    if op in ("or", "unless"):
        assert isinstance(left, dict) and isinstance(right, dict)
        if op == "or":
            return {**right, **left}
        return {labels: value for labels, value in left.items() if labels not in right}
    if isinstance(left, float) and isinstance(right, float):
        return ARITHMETIC[op](left, right)
    keys = [one.keys() for one in (left, right) if isinstance(one, dict)]
    result: Vector = {}
    for labels in set.intersection(*map(set, keys)):
        a, b = (one[labels] if isinstance(one, dict) else one for one in (left, right))
        if op in ARITHMETIC:
            result[labels] = ARITHMETIC[op](a, b)
        elif returns_bool:
            result[labels] = float(COMPARISON[op](a, b))
        elif COMPARISON[op](a, b):
            result[labels] = a if isinstance(left, dict) else b
    return result
