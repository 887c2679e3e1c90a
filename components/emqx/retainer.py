"""Finds out where retained messages are kept: in EMQX itself, in an external store, or nowhere.

The API and the export have only those of EMQX's own database (check_backend/3 in emqx_retainer_api.erl,
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
        built_in: EMQX itself keeps them; they are listed and exported.
        all_expire: every message expires, even without an expiry of its own (clear_expired/3).
    """

    built_in: bool = True
    all_expire: bool = False


def ask_retainer(api: Api) -> Retainer:
    """Ask EMQX how it keeps retained messages.

    Raises:
        httpx.HTTPError: EMQX does not answer.
    """
    answer = api("GET", PATH)
    if answer.status_code == 404:
        return Retainer(built_in=False)
    settings = answer.raise_for_status().json()
    override = settings.get("msg_expiry_interval_override") or "disabled"
    return Retainer(
        # the first store that is enabled counts (enabled_backend_config/1 in emqx_retainer.erl)
        built_in=bool(
            settings.get("enable", True) and (settings.get("backend") or {}).get("enable", True)
        ),
        all_expire=override != "disabled" and not settings.get("allow_never_expire", True),
    )
