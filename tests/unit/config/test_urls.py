"""A request about a tenant's thing is about that one, whatever it is called."""

from __future__ import annotations

from urllib.parse import unquote

import httpx

from components.qdrant.client import path_of
from config.text.urls import path_part
from tests import hostile


@hostile.each(lambda name: hostile.unicode_text(name) and name != "")
def test_a_hostile_name_is_one_part_of_a_path_for_the_client_too(name: str) -> None:
    for path, before in (
        (f"/users/{path_part(name)}", "/users/"),
        (path_of(name), "/collections/"),
    ):
        sent = httpx.URL(f"http://engine:1{path}").raw_path.decode()
        assert sent.startswith(before)
        assert "/" not in sent.removeprefix(before)
        assert unquote(sent.removeprefix(before)) == name
