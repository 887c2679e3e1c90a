"""What keeps the retained messages: EMQX itself, an external store, or nothing.

Only EMQX' own database is listed by the API and is in an export (check_backend/3 in emqx_retainer_api.erl,
tables_to_backup/0 in emqx_retainer_mnesia.erl, v5.8.9).
"""

from __future__ import annotations

from dataclasses import dataclass

from components.emqx.client import Api

PATH = "/mqtt/retainer"


@dataclass(frozen=True)
class Retainer:
    """How messages are retained.

    Attributes:
        built_in: whether EMQX itself keeps them, and they are listed and exported.
        all_expire: whether each goes at some time, though it has no expiry of its own (clear_expired/3).
    """

    built_in: bool = True
    all_expire: bool = False


def ask_retainer(api: Api) -> Retainer:
    """Ask what keeps retained messages.

    Raises:
        httpx.HTTPError: EMQX does not answer.
    """
    answer = api("GET", PATH)
    if answer.status_code == 404:
        return Retainer(built_in=False)
    found = answer.raise_for_status().json()
    override = found.get("msg_expiry_interval_override") or "disabled"
    return Retainer(
        # the first store that is enabled counts (enabled_backend_config/1 in emqx_retainer.erl)
        built_in=bool(
            found.get("enable", True) and (found.get("backend") or {}).get("enable", True)
        ),
        all_expire=override != "disabled" and not found.get("allow_never_expire", True),
    )
