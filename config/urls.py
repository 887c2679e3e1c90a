"""Names in URLs, as clients and servers read them."""

from __future__ import annotations

from urllib.parse import quote


def path_part(name: str) -> str:
    """A name as one part of a URL's path.

    Of `.` and `..` the dots are encoded too: a client takes them for ways up (RFC 3986, 5.2.4; httpx does so), and the
    request would be about another thing.
    """
    made = quote(name, safe="")
    return made if made.strip(".") else made.replace(".", "%2E")
