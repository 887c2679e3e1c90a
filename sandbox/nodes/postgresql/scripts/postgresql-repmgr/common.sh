# What the scripts of the PostgreSQL image share: where Bitnami's image has its files, and questions to other nodes.
# Sourced. The variables are those of Bitnami's chart; what they mean is in librepmgr.sh of github.com/bitnami/containers.
set -eu -o pipefail
export PGDATA LC_ALL=C.UTF-8

conf=/opt/bitnami/postgresql/conf
repmgr_conf=/opt/bitnami/repmgr/conf/repmgr.conf
server_options="-c config_file=$conf/postgresql.conf -c hba_file=$conf/pg_hba.conf"

say() { echo "$(date -u +%T.%3N) $REPMGR_NODE_NAME: $*" >&2; }

# Connection string of repmgr's account on a node; with the variables' limit of time, or another.
conninfo() {
    echo "host=$1 port=$REPMGR_PORT_NUMBER user=$REPMGR_USERNAME dbname=$REPMGR_DATABASE" \
        "connect_timeout=${2:-$REPMGR_CONNECT_TIMEOUT} passfile=$REPMGR_PASSFILE_PATH"
}

# Host of the one primary that the other nodes know; empty if none of them answers, or if they disagree.
primary_by_peers() {
    local peer answer host found=""
    for peer in ${REPMGR_PARTNER_NODES//,/ }; do
        if [ "$peer" = "$REPMGR_NODE_NETWORK_NAME" ]; then continue; fi
        answer=$(psql "$(conninfo "$peer")" -XtAc "SELECT conninfo FROM repmgr.show_nodes
            WHERE coalesce(upstream_node_name, '') = '' AND active" 2> /dev/null) || continue
        host=$(sed -n 's/.*host=\([^ ]*\).*/\1/p' <<< "$answer")
        if [ -z "$host" ]; then continue; fi
        if [ "$(wc -l <<< "$host")" -gt 1 ] || [ "${found:-$host}" != "$host" ]; then return; fi
        found=$host
    done
    echo "$found"
}

stop_server() { pg_ctl -D "$PGDATA" -m fast -w stop > /dev/null 2>&1 || true; }
