#!/bin/bash
# Pgpool by the variables of Bitnami's chart, with the defaults of its image: libpgpool.sh in github.com/bitnami/containers.
set -eu -o pipefail
home=/opt/bitnami/pgpool
conf=$home/conf/pgpool.conf
export PGPOOLKEYFILE=$home/conf/.pgpoolkey PGPOOL_POSTGRES_PASSWORD_FILE PGPOOL_ADMIN_PASSWORD_FILE

on() { if [ "$1" = yes ]; then echo on; else echo off; fi; }
encrypted() { pg_enc --key-file="$PGPOOLKEYFILE" "$(cat "$1")" | grep -oE 'AES[^ ]+'; }

mkdir -p $home/conf $home/tmp $home/logs
rm -f $home/tmp/pgpool.pid
(umask 077 && head -c 20 /dev/urandom | base64 > "$PGPOOLKEYFILE")
cat > $conf << END
backend_clustering_mode = 'streaming_replication'
listen_addresses = '*'
port = 5432
unix_socket_directories = '$home/tmp'
pcp_socket_dir = '$home/tmp'
pcp_listen_addresses = 'localhost'
pid_file_name = '$home/tmp/pgpool.pid'
logdir = '$home/logs'
work_dir = '$home/tmp'
num_init_children = ${PGPOOL_NUM_INIT_CHILDREN:-32}
reserved_connections = ${PGPOOL_RESERVED_CONNECTIONS:-0}
max_pool = ${PGPOOL_MAX_POOL:-15}
connection_cache = $(on "${PGPOOL_ENABLE_CONNECTION_CACHE:-yes}")
load_balance_mode = $(on "${PGPOOL_ENABLE_LOAD_BALANCING:-yes}")
disable_load_balance_on_write = '${PGPOOL_DISABLE_LOAD_BALANCE_ON_WRITE:-transaction}'
enable_pool_hba = on
pool_passwd = '$home/conf/pool_passwd'
authentication_timeout = 30
sr_check_user = '$PGPOOL_SR_CHECK_USER'
sr_check_password = '$(encrypted "$PGPOOL_SR_CHECK_PASSWORD_FILE")'
sr_check_database = '$PGPOOL_SR_CHECK_DATABASE'
sr_check_period = ${PGPOOL_SR_CHECK_PERIOD:-30}
health_check_user = '$PGPOOL_SR_CHECK_USER'
health_check_password = '$(encrypted "$PGPOOL_SR_CHECK_PASSWORD_FILE")'
health_check_period = ${PGPOOL_HEALTH_CHECK_PERIOD:-30}
health_check_timeout = ${PGPOOL_HEALTH_CHECK_TIMEOUT:-10}
health_check_max_retries = ${PGPOOL_HEALTH_CHECK_MAX_RETRIES:-5}
health_check_retry_delay = ${PGPOOL_HEALTH_CHECK_RETRY_DELAY:-5}
connect_timeout = ${PGPOOL_CONNECT_TIMEOUT:-10000}
failover_command = 'echo failover'
failover_on_backend_error = ${PGPOOL_FAILOVER_ON_BACKEND_ERROR:-off}
failover_on_backend_shutdown = ${PGPOOL_FAILOVER_ON_BACKEND_SHUTDOWN:-on}
search_primary_node_timeout = 0
END
for node in ${PGPOOL_BACKEND_NODES//,/ }; do
    IFS=: read -r number host port <<< "$node"
    cat >> $conf << END
backend_hostname$number = '$host'
backend_port$number = $port
backend_weight$number = 1
backend_flag$number = 'ALLOW_TO_FAILOVER'
END
done
if [ -n "${PGPOOL_USER_CONF_FILE:-}" ]; then cat "$PGPOOL_USER_CONF_FILE" >> $conf; fi
cat > $home/conf/pool_hba.conf << END
local all all trust
host all $PGPOOL_SR_CHECK_USER all trust
host all all all ${PGPOOL_AUTHENTICATION_METHOD:-scram-sha-256}
END
: > $home/conf/pool_passwd
pg_enc -m --key-file="$PGPOOLKEYFILE" --config-file=$conf --username="$PGPOOL_POSTGRES_USERNAME" \
    "$(cat "$PGPOOL_POSTGRES_PASSWORD_FILE")" > /dev/null
echo "$PGPOOL_ADMIN_USERNAME:$(pg_md5 "$(cat "$PGPOOL_ADMIN_PASSWORD_FILE")")" > $home/conf/pcp.conf
exec pgpool -n -D -f $conf -F $home/conf/pcp.conf -a $home/conf/pool_hba.conf
