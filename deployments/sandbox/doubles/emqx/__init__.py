"""A double of an EMQX 5.8 cluster: its management API, in front of real MQTT brokers.

The brokers are nats-server's MQTT listeners (MQTT 3.1.1, QoS 0-2, retained messages, one cluster over the nodes;
https://docs.nats.io/running-a-nats-service/configuration/mqtt), with the users that the API keeps. The API is what this
project calls of it: sign-on, nodes, authentication users, rules, API keys, dashboard users, retained messages, publish,
data export and import; everything else answers 404. Rules are kept, not executed. An export has the real archive's
files, but JSON where the real ones have Erlang terms. With an API key it leaves out dashboard users and API keys, as
EMQX does from 6.0.3 on.

state    what the nodes share, and how they keep it alike
broker   the MQTT server of a node
export   data export and import
wire, server   the management API; internal   what nodes ask one another
"""
