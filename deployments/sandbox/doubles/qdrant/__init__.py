"""A double of a Qdrant cluster: its HTTP API on real qdrant-edge shards, with three peers that replicate.

It answers as a real cluster of 1.16.3 did (tests/integration/doubles/qdrant-recordings.json), surprises included: a
killed peer's replicas stay `Active` until the first write to them, `/readyz` says that all is well, an upload without a
checksum takes any bytes. What it does not do: Raft (changes of collections are broadcast with a version, the highest
wins), gRPC, custom sharding, resharding, and the rarer calls of the API; those answer 404.

errors   how a refusal looks
points   JSON of the API ↔ objects of qdrant-edge
shards   shards on disk, and their snapshots
peer     one peer: what it knows of collections, where shards live, how writes and reads find them
wire, snapshots, server   the public API; internal   what peers ask one another
"""
