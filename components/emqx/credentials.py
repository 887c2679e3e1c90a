"""EMQX: dashboard administrator and the cookie that lets nodes into the cluster."""

from __future__ import annotations

from cluster.credentials import SecretSpec, password

SECRETS = (
    SecretSpec(
        "emqx-auth",
        {"EMQX_DASHBOARD__DEFAULT_PASSWORD": password, "EMQX_NODE__COOKIE": password},
    ),
)
