"""Two texts of one expression are one text, and those of two expressions are not."""

from __future__ import annotations

import time

import pytest

from components.postgresql.measures.expressions import canonical


@pytest.mark.parametrize(
    ("source", "restored"),
    [
        (
            "CHECK (((s)::text = ANY ((ARRAY['a'::character varying, 'b'::character varying])::text[])))",
            "CHECK (((s)::text = ANY (ARRAY[('a'::character varying)::text, ('b'::character varying)::text])))",
        ),
        ("((d)::timestamp(3) without time zone > now())", "(d > now())"),
        ("lower((s)::text)", "lower(s)"),
        ('(p)::"My ""type"""[]', "p"),
        ("(g)::public.geometry(Point,4326)", "g"),
        ("a  =\n b", "a = b"),
    ],
)
def test_casts_and_brackets_around_one_thing_do_not_count(source: str, restored: str) -> None:
    assert canonical(source) == canonical(restored)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("((a OR b) AND c)", "(a OR (b AND c))"),
        ("s = 'a b'", "s = 'a  b'"),
        ("s = 'a::text'", "s = 'a'"),
        ("s = E'\\'::text'", "s = E'\\''"),
        ('"a::b" = 1', '"a" = 1'),
        ("f(a)", "f a"),
        ("AS $function$ (a)::b $function$", "AS $function$ a $function$"),
        ("a = 1", "a = 2"),
    ],
)
def test_everything_else_counts(one: str, other: str) -> None:
    assert canonical(one) != canonical(other)


def test_no_depth_and_no_broken_text_is_too_much() -> None:
    assert canonical("(" * 50_000 + "a" + ")" * 50_000) == "a"
    assert canonical("a::") == "a"
    assert canonical("f(((") == canonical("f(((")
    assert canonical(")]'") == ") ] '"


@pytest.mark.parametrize("piece", ["(a)::x ()", "a$b$c ", "'a'::text || "])
def test_a_long_definition_takes_no_longer_than_its_length(piece: str) -> None:
    text = "".join(piece.replace("b", f"b{n}") for n in range((1 << 18) // len(piece)))
    begun = time.process_time()
    canonical(text)
    assert time.process_time() - begun < 10  # a tenth of a second, where it was half a minute


def test_a_dollar_within_a_name_begins_no_string() -> None:
    assert canonical("a$b$c = d$b$e") == canonical("a$b$c  =\n d$b$e")
