"""A double of a Qdrant cluster: its HTTP API on real qdrant-edge shards, with peers that replicate.

It answers as a real cluster of 1.16.3 did (tests/integration/doubles/qdrant-recordings.json), surprises included: a
killed peer's replicas stay `Active` until the first write to them, `/readyz` says that all is well, an upload without a
checksum takes any bytes. Limits, shard keys and compressed answers follow the source of 1.19.0; each names its place.
What it does not do: gRPC, resharding, moving shards, sparse vectors, restoring whole collections' snapshots, and calls
that nothing here makes; those answer 404, or 400 where a field of a known call is meant. Of strict mode it has the
limits of pages, reads and indexes. A write is acknowledged at a consistency factor of 1, whatever a collection says.

errors, body       how a refusal looks; a request's body as a stream
points, operations JSON of the API ↔ objects of qdrant-edge, carried out on a replica
shards             shards on disk, and their snapshots
keys, limits       custom sharding, and strict mode
network, consensus the other peers; the cluster's state, which a majority of them keeps
peer               one peer: what it knows of collections, and its shards
replication, questions   how writes find all replicas, and a dead one comes back; how reads find one
wire; structure, stored, snapshots; server   the public API: bytes, routes, their table
internal           what peers ask one another
"""
