"""Names that an attacker, or chance, may give to a tenant's object, each under a key that says what it tries.

A test feeds them where a name is stored, sent, drawn or printed:

    @hostile.each(hostile.POSTGRESQL)
    def test_a_table_of_that_name_is_backed_up(name: str) -> None: ...

`hostile.NAMES` has them all. A context is a rule of a server or a format, with its source. `names(context)` are
those that the context accepts, so a test of PostgreSQL does not create a name that PostgreSQL cannot have.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable

import pytest

ESC, BEL, CSI = "\x1b", "\x07", "\x9b"

NAMES: dict[str, str] = {
    # quotes and escapes
    "single-quote": "o'brien",
    "double-quote": 'say "x"',
    "back-quote": "a`b``c",
    "quotes-mixed": "'\"`\\'",
    "backslash": "a\\b\\n\\",
    # lines and columns
    "newline": "first\nsecond",
    "newline-at-end": "name\n",
    "carriage-return": "harmless\rforged   ",
    "crlf": "a\r\nb",
    "tab": "a\tb",
    "vertical-tab": "a\vb\fc",
    "line-separator": "a\u2028b\u2029c",
    "next-line": "a\x85b",
    # terminals
    "clear-screen": f"{ESC}[2J{ESC}[Hgone",
    "forged-pass": f"x{ESC}[1A{ESC}[2K\r{ESC}[32mpass{ESC}[0m",
    "title": f"{ESC}]0;owned{BEL}x",
    "hyperlink": f"{ESC}]8;;http://evil.example/{ESC}\\click{ESC}]8;;{ESC}\\",
    "clipboard": f"{ESC}]52;c;cm0gLXJmIH4K{BEL}",
    "answerback": f"{ESC}[c{ESC}[6n{ESC}[21t",
    "backspace": "evil\b\b\b\bgood",
    "bell": f"a{BEL}b",
    "delete": "a\x7fb",
    "c1-csi": f"{CSI}2J{CSI}31mx",
    "c1-all": "".join(map(chr, range(0x80, 0xA0))),
    "c0-all-but-nul": "".join(map(chr, range(0x01, 0x20))),
    # Unicode
    "right-to-left": "invoice\u202efdp.exe",
    "isolates": "a\u2066\u2067b\u2069",
    "zero-width": "pay\u200broll\u200d\u2060",
    "byte-order-mark": "\ufeffname",
    "soft-hyphen": "pay\u00adroll",
    "tags": "x\U000e0041\U000e0042",
    "combining": "a" + "\u0301\u0327\u20dd" * 8,
    "combining-first": "\u0338ok",
    "fillers": "pay\u3164roll\u115f\u2800",
    "variants": "a\ufe00b\U000e0101",
    "emoji": "🦀🧨",
    "emoji-joined": "👩\u200d👩\u200d👧",
    "wide": "顧客データ",
    "umlaut": "Größe",
    "umlaut-decomposed": "Gro\u0308\u00dfe",
    "homoglyph": "p\u0430yroll",  # a Cyrillic letter
    "noncharacter": "a\ufffe\U0001ffffb",
    "lone-surrogate": "a\ud800b",
    "undecodable-byte": "a\udcffb",  # byte 0xff as Python's surrogateescape reads it
    "nul": "a\0b",
    # Markdown
    "heading": "# x\n[link](http://evil.example)",
    "markdown-link": "[backup passed](http://evil.example)",
    "markdown-image": "![x](http://evil.example/x.png)",
    "markdown-autolink": "<http://evil.example>",
    "markdown-url": "https://evil.example/login",
    "markdown-webhook": "https://hooks.evil.example/hook/a [x](http://evil.example)",
    "markdown-token": "https://evil.example/?token=abcdefgh`[x](http://evil.example)",
    "markdown-reference": "[x]: http://evil.example",
    "markdown-emphasis": "**passed** _really_ ~~no~~",
    "table-pipe": "a | **pass** | b",
    "code-fence": "```\nend\n```",
    "code-span": "`` ` ``",
    "list-item": "- [x] done",
    "quote-mark": "> quoted",
    "rule": "---",
    "mermaid": "x --> y; click x href \"javascript:alert(1)\"",
    # HTML, XML
    "script": "<script>alert(1)</script>",
    "image-onerror": "\"><img src=x onerror=alert(1)>",
    "attribute": "\" onmouseover=\"alert(1)",
    "entity": "&lt;b&gt;&#x1b;[2J",
    "comment": "<!-- --><b>x</b>",
    "cdata": "]]><x/>",
    "svg": "</svg><script>alert(1)</script>",
    "javascript-url": "javascript:alert(1)",
    # paths
    "parent": "..",
    "parents": "../../etc/passwd",
    "absolute": "/etc/passwd",
    "current": ".",
    "slash": "a/b",
    "double-slash": "a//b",
    "windows-path": "C:\\x\\..\\y",
    "hidden": ".ssh",
    "255-bytes": "n" * 255,
    "255-bytes-wide": "🦀" * 63 + "abc",
    "256-bytes": "n" * 256,
    # shells and programs
    "command": "$(touch /tmp/owned)",
    "back-tick-command": "`touch /tmp/owned`",
    "semicolon": "; rm -rf ~",
    "ampersand": "a && id | sh &",
    "redirect": "> /tmp/owned < /etc/passwd",
    "glob": "* ? [a-z] {a,b} ~",
    "variable": "$HOME ${PATH}",
    "option": "-rf",
    "long-option": "--help",
    "option-value": "--config=/etc/passwd",
    "double-dash": "--",
    "at-file": "@/etc/passwd",
    "equals": "-o=x",
    # databases
    "sql": "x'; DROP TABLE users; --",
    "sql-identifier": 'x"; DROP TABLE users; --',
    "sql-dollar": "$$; SELECT 1; $$",
    "sql-escape": "E'\\x27",
    "cypher": "x`}) DETACH DELETE n //",
    "cypher-unicode": "\\u0060 DETACH DELETE n",
    "psql-meta": "\\! touch /tmp/owned",
    "psql-variable": ":'HOME' :x",
    "conninfo": "x host=evil.example password=y",
    "url": "postgresql://u:p@evil.example/x?sslmode=disable",
    "lua": "]] redis.call('FLUSHALL') --",
    # templates and formats
    "percent": "%s %d %(x)s %n",
    "braces": "{} {0} {x!r} {0.__class__}",
    "jinja": "{{ 7*7 }}{% raw %}",
    "go-template": "{{ .Values.x }}",
    "dollar-braces": "${storage.nfs.server}",
    "rich": "[red]fail[/red]",
    "rich-close": "[/]",
    "rich-link": "[link=http://evil.example]x[/link]",
    "rich-emoji": ":skull:",
    "tex": "$\\frac{1}{0}$",
    "json": '", "verdict": "pass", "x": "',
    "yaml": "x: y\n- !!python/object/apply:os.system [id]",
    "yaml-alias": "*a",
    "csv-formula": "=cmd|' /C calc'!A1",
    "prometheus-label": '"} 1\nisa_cloud_verify_failing{component="x',
    "log-line": "x\nERROR isa: forged",
    "http-header": "x\r\nSet-Cookie: a=b",
    "query": "a?b=c&d#e",
    "percent-escape": "%00%2e%2e%2f%0a",
    # engines' own wildcards and separators
    "nats-wildcard": "a.*.>",
    "mqtt-wildcard": "a/+/#",
    "mqtt-system": "$SYS/x",
    "redis-slot": "{a}{b}",
    "redis-glob": "user:*[^a]",
    # words that mean something
    "null": "null",
    "number": "0x10",
    "dunder": "__proto__",
    "reserved": "select",
    "verdict": "pass",
    # nothing
    "blanks": "   ",
    "blank-at-ends": " name ",
    "no-break-space": "\u00a0",
    "empty": "",
}  # fmt: skip

Context = Callable[[str], bool]


def size(name: str) -> int:
    """Bytes in UTF-8; one that is no Unicode text counts as if it were."""
    return len(name.encode(errors="surrogatepass"))


def unicode_text(name: str) -> bool:
    """Whether it can be sent as UTF-8: no half of a surrogate pair."""
    return not re.search("[\ud800-\udfff]", name)


def PYTHON(name: str) -> bool:  # noqa: N802
    """Any `str`; JSON too, which writes a lone surrogate as `\\ud800`."""
    return True


def POSTGRESQL(name: str) -> bool:  # noqa: N802
    """An identifier of PostgreSQL in a database of UTF-8 (src/include/pg_config_manual.h: NAMEDATALEN 64)."""
    return unicode_text(name) and "\0" not in name and 0 < size(name) <= 63


def REDIS(name: str) -> bool:  # noqa: N802
    """A key of Redis: any bytes. Those that are no UTF-8 are Python's `surrogateescape`."""
    return not re.search("[\ud800-\udc7f\udd00-\udfff]", name)


def NATS_STREAM(name: str) -> bool:  # noqa: N802
    """A stream of NATS (nats-server, server/jetstream.go: isValidName; JSMaxNameLen 255; no path separators)."""
    return (
        unicode_text(name) and 0 < size(name) <= 255 and not re.search(r"[ \t\r\n\f.*>/\\]", name)
    )


def NATS_SUBJECT(name: str) -> bool:  # noqa: N802
    """A subject to publish to (nats-server, server/sublist.go: isValidSubject with runes, isValidLiteralSubject)."""
    tokens = name.split(".")
    literal = all(tokens) and not {"*", ">"} & set(tokens)
    return unicode_text(name) and literal and not re.search(r"[ \t\r\n\f\0]", name)


def S3_KEY(name: str) -> bool:  # noqa: N802
    """An object's key in MinIO (cmd/object-api-utils.go: IsValidObjectName, checkObjectNameForLengthAndSlash).

    Its segments are names of directories, and those that are `.` or `..` between blanks are refused
    (cmd/generic-handlers.go: hasBadPathComponent).
    """
    parts = re.split(r"[/\\]", name)
    return (
        unicode_text(name)
        and 0 < size(name) <= 1024
        and not re.search(r"\0|//|^/|/$", name)
        and not {".", ".."} & {part.strip() for part in parts}
        and all(size(part) <= 255 for part in parts)
    )


def QDRANT_COLLECTION(name: str) -> bool:  # noqa: N802
    """A collection of Qdrant (lib/common/common/src/validation.rs: validate_collection_name)."""
    return (
        unicode_text(name) and 0 < len(name) <= 255 and not re.search('[<>:"/\\\\|?*\0\x1f]', name)
    )


def NEO4J_TOKEN(name: str) -> bool:  # noqa: N802
    """A label, a relationship type or a property's key of Neo4j."""
    return unicode_text(name) and "\0" not in name and name != ""


def MQTT_STRING(name: str) -> bool:  # noqa: N802
    """A client's id, a user's name, a retained topic without wildcards (MQTT 5.0, 1.5.4 and 4.7.3)."""
    return unicode_text(name) and "\0" not in name and not re.search("[+#]", name) and name != ""


def ARGUMENT(name: str) -> bool:  # noqa: N802
    """An argument of a process: bytes up to a NUL, which Python reads with `surrogateescape`."""
    return "\0" not in name and not re.search("[\ud800-\udc7f\udd00-\udfff]", name)


def FILE_NAME(name: str) -> bool:  # noqa: N802
    """A name in a directory of Linux."""
    return ARGUMENT(name) and "/" not in name and name not in ("", ".", "..") and size(name) <= 255


def KUBERNETES(name: str) -> bool:  # noqa: N802
    """An object's name in Kubernetes: a DNS label (RFC 1123). Nothing hostile fits in."""
    return re.fullmatch("[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", name) is not None


def names(context: Context = PYTHON) -> dict[str, str]:
    """The names that a context accepts, by their keys."""
    return {key: name for key, name in NAMES.items() if context(name)}


def refused(context: Context) -> dict[str, str]:
    """The names that a context does not accept, by their keys."""
    return {key: name for key, name in NAMES.items() if not context(name)}


def grouped(number: int = 10) -> list[str]:
    """All names: those with blanks at an end or with characters that are not printable alone, the others together.

    Args:
        number: of names in a text.
    """
    plain = [
        name for name in NAMES.values() if name.isprintable() and name and name == name.strip()
    ]
    alone = [name for name in NAMES.values() if name not in plain]
    joined = [" ".join(plain[at : at + number]) for at in range(0, len(plain), number)]
    return [*alone, *joined]


def each(context: Context = PYTHON) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Calls a test with each name that a context accepts (argument `name`), and reports all names that fail at once.

    It stays one test for pytest, because the report of a test costs more than most of these calls.
    """

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        accepted = names(context)

        @functools.wraps(test)
        def with_each(**fixtures: object) -> None:
            failures: list[BaseException] = []
            for key, name in accepted.items():
                try:
                    test(name=name, **fixtures)
                except (Exception, pytest.fail.Exception) as exc:
                    exc.add_note(f"hostile name: {key}")
                    failures.append(exc)
            if failures:
                message = f"{len(failures)} of {len(accepted)} hostile names failed"
                raise BaseExceptionGroup(message, failures)

        asked = inspect.signature(test)
        others = [value for key, value in asked.parameters.items() if key != "name"]
        with_each.__signature__ = asked.replace(parameters=others)  # type: ignore[attr-defined]
        return with_each

    return decorate
