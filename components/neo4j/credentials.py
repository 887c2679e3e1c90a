"""Neo4j: the initial password, in the form that its image reads."""

from __future__ import annotations

from cluster.credentials import SecretSpec, password


def neo4j_auth() -> str:
    """User and password as NEO4J_AUTH wants them; the user name is fixed by Neo4j."""
    return f"neo4j/{password()}"


SECRETS = (SecretSpec("neo4j-auth", {"NEO4J_AUTH": neo4j_auth}),)
