"""A double of an EMQX 5.8 cluster: its management API, in front of real MQTT brokers.

The brokers are nats-server's MQTT listeners (MQTT 3.1.1, QoS 0-2, retained messages, one cluster over the nodes;
https://docs.nats.io/running-a-nats-service/configuration/mqtt), with the users that the API keeps. The API is sign-on,
nodes, users of MQTT and of the dashboard, API keys, rules, connectors, bans, messages, data export and import; paths
and errors were read in EMQX's source (https://github.com/emqx/emqx, apps/emqx_management and apps/emqx_dashboard).
Everything else answers 404. An export has the real archive's files; retained messages are in Mnesia's format, other
tables are JSON where the real ones have Erlang terms.

Not supported: rules, connectors, bans and access rules are stored and exported without any effect. A publication
without subscribers is answered by 200 instead of 202. Connections are counted by /clients and /stats, not by
/nodes. Retained messages have no time and no sender, an expiry only if the API published them; subscriptions no QoS. A
new password leaves older tokens good. With an API key an export leaves out dashboard users and API keys, and an import
that has them is refused, as from 6.0.3 on; roles of API keys hold as in the Enterprise edition.

state    shared tables and their replication
broker   the MQTT server of a node
export, backups   data export and import, and its archives; mnesia is the format of its tables
retainer   retained messages: expiries, messages of the node itself, settings
wire, server   the management API and its routes: subjects (users and keys), stored (tables), seen (monitoring)
internal   requests between nodes
"""
