#!/bin/bash
# Liveness, as Bitnami's image has it: whether Pgpool answers. A node that it holds for down and that is up is attached.
set -eu -o pipefail
PGPASSWORD=$(cat "$PGPOOL_POSTGRES_PASSWORD_FILE")
export PGPASSWORD PCPPASSFILE=/tmp/.pcppass
backends=$(PGCONNECT_TIMEOUT=${PGPOOL_HEALTH_CHECK_PSQL_TIMEOUT:-15} psql -XtA -U "$PGPOOL_POSTGRES_USERNAME" -d postgres \
    -h /opt/bitnami/pgpool/tmp -p 5432 -c 'SHOW pool_nodes')
while IFS='|' read -r number host port status real _; do
    if [ "$status|$real" != "down|up" ]; then continue; fi
    if PGCONNECT_TIMEOUT=3 psql -XtA -U "$PGPOOL_POSTGRES_USERNAME" -d postgres -h "$host" -p "$port" -c 'SELECT 1'; then
        (umask 077 && echo "localhost:9898:$PGPOOL_ADMIN_USERNAME:$(cat "$PGPOOL_ADMIN_PASSWORD_FILE")" > $PCPPASSFILE)
        pcp_attach_node -h localhost -p 9898 -U "$PGPOOL_ADMIN_USERNAME" -w -n "$number"
    fi
done <<< "$backends"
