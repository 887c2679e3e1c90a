"""Downloads Neo4j in advance; `lock VERSION` pins another version first."""

from __future__ import annotations

import sys

from sandbox.engines import neo4j_programs

if __name__ == "__main__":
    if sys.argv[1:2] == ["lock"]:
        neo4j_programs.LOCK.write_text(neo4j_programs.lock(sys.argv[2]), encoding="utf-8")
    neo4j_programs.ensure()
