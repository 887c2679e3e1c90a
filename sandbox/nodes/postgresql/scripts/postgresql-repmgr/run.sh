#!/bin/bash
# First process of a node: PostgreSQL and repmgrd, as Bitnami's image starts them. It asks the other nodes who is primary:
# nobody, or this node: its data are started as they are; else it is cloned from the primary, or rewound to it.
# As there, a primary that restarts while it reaches no other node is a primary again. Unlike there, a standby that finds
# no primary waits for one.
. /opt/bitnami/scripts/postgresql-repmgr/common.sh
repmgrd=""

secret() { cat "${!1}"; }

write_configuration() {
    mkdir -p "$conf/conf.d" "$(dirname "$repmgr_conf")"
    echo "*:*:*:$REPMGR_USERNAME:$(secret REPMGR_PASSWORD_FILE)" > "$REPMGR_PASSFILE_PATH"
    chmod 600 "$REPMGR_PASSFILE_PATH"
    cat > "$conf/postgresql.conf" << END
listen_addresses = '*'
port = $REPMGR_PORT_NUMBER
unix_socket_directories = '/tmp'
shared_preload_libraries = 'repmgr, $POSTGRESQL_SHARED_PRELOAD_LIBRARIES'
max_connections = ${POSTGRESQL_MAX_CONNECTIONS:-100}
max_wal_senders = 16
max_replication_slots = 10
wal_level = replica
hot_standby = on
archive_mode = on
archive_command = '/bin/true'
client_min_messages = $POSTGRESQL_CLIENT_MIN_MESSAGES
include_dir '/bitnami/postgresql/conf/conf.d'
END
    cat > "$conf/pg_hba.conf" << END
local all all trust
host all all 127.0.0.1/32 trust
host all all 0.0.0.0/0 md5
host replication all 0.0.0.0/0 md5
END
    cat > "$repmgr_conf" << END
node_id=$((1000 + ${REPMGR_NODE_NAME##*-}))
node_name='$REPMGR_NODE_NAME'
conninfo='$(conninfo "$REPMGR_NODE_NETWORK_NAME")'
data_directory='$PGDATA'
pg_bindir='/usr/lib/postgresql/17/bin'
pg_ctl_options='-o "$server_options"'
passfile='$REPMGR_PASSFILE_PATH'
use_replication_slots=${REPMGR_USE_REPLICATION_SLOTS:-1}
failover=automatic
promote_command='repmgr -f $repmgr_conf standby promote'
follow_command='repmgr -f $repmgr_conf standby follow -W'
reconnect_attempts=$REPMGR_RECONNECT_ATTEMPTS
reconnect_interval=$REPMGR_RECONNECT_INTERVAL
monitor_interval_secs=${REPMGR_MONITOR_INTERVAL_SECS:-2}
log_level=$REPMGR_LOG_LEVEL
END
    if [ "${REPMGR_FENCE_OLD_PRIMARY:-no}" = yes ]; then
        cat >> "$repmgr_conf" << END
child_nodes_disconnect_command='/opt/bitnami/scripts/postgresql-repmgr/fence.sh'
child_nodes_check_interval=$REPMGR_CHILD_NODES_CHECK_INTERVAL
child_nodes_connected_min_count=$REPMGR_CHILD_NODES_CONNECTED_MIN_COUNT
child_nodes_disconnect_timeout=$REPMGR_CHILD_NODES_DISCONNECT_TIMEOUT
END
    fi
}

start_server() {
    # shellcheck disable=SC2086
    postgres -D "$PGDATA" $server_options &
    until pg_isready -q -h 127.0.0.1 -p "$REPMGR_PORT_NUMBER"; do
        kill -0 $! # ends here if it has ended
        sleep 0.1
    done
}

sql() { psql -Xq -v ON_ERROR_STOP=1 -h 127.0.0.1 -p "$REPMGR_PORT_NUMBER" -U postgres "$@"; }

make_cluster() {
    local arguments script
    say "makes a new database cluster"
    read -ra arguments <<< "${POSTGRESQL_INITDB_ARGS:-}"
    initdb -D "$PGDATA" -U postgres -E UTF8 --auth=trust --pwfile="$POSTGRES_POSTGRES_PASSWORD_FILE" "${arguments[@]}"
    rm "$PGDATA/postgresql.conf" "$PGDATA/pg_hba.conf" # as Bitnami's image: they are outside of the data
    start_server
    sql -d postgres \
        -v owner="$POSTGRES_USER" -v password="$(secret POSTGRES_PASSWORD_FILE)" -v database="$POSTGRES_DB" \
        -v repmgr="$REPMGR_USERNAME" -v repmgr_password="$(secret REPMGR_PASSWORD_FILE)" \
        -v repmgr_database="$REPMGR_DATABASE" -v check="$POSTGRESQL_SR_CHECK_USERNAME" \
        -v check_password="$(secret POSTGRESQL_SR_CHECK_PASSWORD_FILE)" << 'END'
CREATE ROLE :"owner" LOGIN CREATEDB PASSWORD :'password';
CREATE DATABASE :"database" OWNER :"owner";
CREATE ROLE :"repmgr" SUPERUSER CREATEDB LOGIN PASSWORD :'repmgr_password';
ALTER ROLE :"repmgr" SET search_path = repmgr, "$user", public;
CREATE DATABASE :"repmgr_database";
CREATE ROLE :"check" LOGIN PASSWORD :'check_password';
END
    repmgr -f "$repmgr_conf" primary register --force
    for script in /docker-entrypoint-initdb.d/*.sql; do
        if [ -e "$script" ]; then sql -d "$POSTGRES_DB" -U "${POSTGRESQL_INITSCRIPTS_USERNAME:-postgres}" -f "$script"; fi
    done
}

rewind() {
    say "is rewound to $1"
    if ! pg_controldata -D "$PGDATA" | grep -q 'cluster state: *shut down'; then
        # shellcheck disable=SC2086
        postgres --single -D "$PGDATA" $server_options template1 < /dev/null
    fi
    pg_rewind -D "$PGDATA" --config-file="$conf/postgresql.conf" -R \
        --source-server="$(conninfo "$1") application_name=$REPMGR_NODE_NAME"
}

join() {
    local primary=$1 attempt
    say "the primary is $primary"
    for attempt in $(seq 60); do
        if psql "$(conninfo "$primary")" -XtAc 'SELECT 1 FROM repmgr.nodes' > /dev/null 2>&1; then break; fi
        if [ "$attempt" = 60 ]; then
            say "$primary does not answer"
            exit 1
        fi
        sleep 1
    done
    if [ "${REPMGR_USE_PGREWIND:-no}" != yes ] || [ ! -e "$PGDATA/PG_VERSION" ] || ! rewind "$primary"; then
        say "is cloned from $primary"
        repmgr -f "$repmgr_conf" -h "$primary" -U "$REPMGR_USERNAME" -d "$(conninfo "$primary")" \
            standby clone --fast-checkpoint --force
    fi
    start_server
    repmgr -f "$repmgr_conf" standby register --force
}

start_node() {
    local primary
    primary=$(primary_by_peers)
    if [ "$primary" = "$REPMGR_NODE_NETWORK_NAME" ]; then primary=""; fi
    if [ -n "$primary" ]; then
        join "$primary"
    elif [ ! -e "$PGDATA/PG_VERSION" ] && [ "$REPMGR_PRIMARY_HOST" != "$REPMGR_NODE_NETWORK_NAME" ]; then
        join "$REPMGR_PRIMARY_HOST"
    elif [ ! -e "$PGDATA/PG_VERSION" ]; then
        make_cluster
    elif [ -e "$PGDATA/standby.signal" ]; then
        say "no node knows the primary"
        sleep 2
        start_node
    else
        say "no other node is primary: starts as it is"
        start_server
    fi
}

end() {
    stop_server
    if [ -n "$repmgrd" ]; then kill "$repmgrd" 2> /dev/null || true; fi
    exit 0
}

trap end TERM INT
write_configuration
start_node
repmgrd -f "$repmgr_conf" --daemonize=false --pid-file=/opt/bitnami/repmgr/tmp/repmgrd.pid &
repmgrd=$!
wait "$repmgrd"
