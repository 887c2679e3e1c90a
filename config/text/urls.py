"""Names in URLs, as clients and servers read them."""

from __future__ import annotations

from urllib.parse import quote


def path_part(name: str) -> str:
    """Return a name as one segment of a URL's path.

    The dots of `.` and `..` are encoded too: a client would resolve them (RFC 3986, 5.2.4; httpx does so), and the
    request would be for another resource.
    """
    made = quote(name, safe="")
    return made if made.strip(".") else made.replace(".", "%2E")
