"""Where the stand-in charts and the contracts may differ, each with its reason. Reviewed by hand, kept short."""

from __future__ import annotations

# Chart → version of the contract, and why it is not the version that production pins.
OTHER_VERSIONS = dict.fromkeys(
    ("neo4j", "neo4j-headless-service"),
    ("5.17.0", "The charts' public repository ends at 5.17.0; later archives could not be had."),
)
INTERNALS = (
    "Headless in 5.17.0; has an address since https://github.com/neo4j/helm-charts/pull/332."
)
# Chart → difference, as the test prints it → reason.
DIFFERENT_FIELDS: dict[str, dict[str, str]] = {
    "neo4j": {
        "ConfigMap/{release}-default-config data.dbms.cluster.discovery.version: "
        "real None, stand-in string": (
            "5.17.0 has no discovery version; the pinned chart has one and production sets it."
        ),
        "Service/{release}-internals spec.clusterIP: real string, stand-in None": INTERNALS,
        "Service/{release}-internals spec.type: real None, stand-in string": INTERNALS,
    }
}
