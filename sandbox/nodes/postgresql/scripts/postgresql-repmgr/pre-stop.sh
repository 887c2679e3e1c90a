#!/bin/bash
# Before a pod ends: stop the server, and give the others the time to promote one of them and Pgpool to notice.
# Argument: seconds from the stop to the end.
. /opt/bitnami/scripts/postgresql-repmgr/common.sh
stop_server
began=$SECONDS
if [ ! -e "$PGDATA/standby.signal" ]; then
    for _ in $(seq 10); do
        primary=$(primary_by_peers)
        if [ -n "$primary" ] && [ "$primary" != "$REPMGR_NODE_NETWORK_NAME" ]; then break; fi
        sleep 5
    done
fi
while [ $((SECONDS - began)) -lt "${1:-0}" ]; do sleep 1; done
