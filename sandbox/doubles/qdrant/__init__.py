"""A double of a Qdrant cluster: its HTTP API on real qdrant-edge shards, with peers that replicate.

Its answers are those of a real cluster of 1.16.3 (tests/integration/doubles/qdrant-recordings.json), including
surprises: a killed peer's replicas stay `Active` until the first write to them, `/readyz` reports ready, and an upload
without a checksum accepts any bytes. Limits, shard keys and compressed answers follow the source of 1.19.0; each names
its source.

Not supported: gRPC, resharding, moving shards, sparse vectors, snapshots of whole collections, and calls that this
project does not make. Those answer 404, or 400 for an unknown field of a known call. Strict mode has the limits of
pages, reads and indexes only. Writes are always acknowledged at a consistency factor of 1.

errors, body       refusals; a request's body as a stream
points, operations JSON of the API ↔ objects of qdrant-edge, carried out on a replica
shards             shards on disk, and their snapshots
keys, limits       custom sharding, and strict mode
network, consensus the other peers; the cluster's state, kept by a majority
peer               one peer: its collections and shards
replication, questions   writes to all replicas, and recovery of a dead one; reads from one replica
wire; structure, stored, snapshots; server   the public API: bytes, routes, their table
internal           requests between peers
"""
