"""PostgreSQL 18 under Patroni: one leader, streaming standbys, automatic failover.

Production's chart uses repmgr instead. Both provide a primary, streaming standbys, and a promotion when the primary is
lost. Patroni keeps its leader lock in ConfigMaps of the sandbox's own API server
(https://patroni.readthedocs.io/en/latest/kubernetes.html).
"""

from __future__ import annotations

import stat
import sys
from pathlib import Path

import psycopg
import yaml

from sandbox.agent.pod import Pod
from sandbox.engines.base import Engine, Launch
from sandbox.machine import postgres
from sandbox.machine.paths import write_atomic

CONTAINER = "postgresql"
SCRIPTS = "custom-init-scripts"  # the values' initdbScripts
SCOPE_LABEL = "isa-cloud.io/patroni"
# A lost leader is replaced after 20 s; checks every 3 s. Shorter times flap on two busy cores.
TTL_SECONDS, LOOP_SECONDS = 20, 3
# Patroni resumes a paused replay at its next check (`handle_parameter_change`). repmgr does not, and a backup needs the
# pause for longer than three seconds.
PATRONI = """
from patroni.__main__ import main
from patroni.postgresql import Postgresql

Postgresql.handle_parameter_change = lambda _: None
main()
"""
PARAMETERS = {
    "unix_socket_directories": "",
    "max_connections": 60,
    "shared_buffers": "24MB",
    "max_wal_senders": 10,
    "max_replication_slots": 10,
    "wal_keep_size": "256MB",  # pg_basebackup -X fetch needs the WAL of its whole duration
    "max_slot_wal_keep_size": "2GB",  # as in production: an unused slot does not fill the disk
    "summarize_wal": "on",  # incremental backups (17 and newer)
    "fsync": "off",  # a sandbox need not survive a power failure
    "log_line_prefix": "%m [%p] %u@%d ",
}


def prepare(pod: Pod) -> Launch:
    """Write Patroni's configuration; the first member of an empty cluster becomes its leader."""
    container = next(c for c in pod.containers if c["name"] == CONTAINER)
    environ = pod.environment(container)
    passwords = pod.files("postgresql-creds") | pod.files("pgpool-creds")
    # Patroni's objects are deleted with the StatefulSet, so that a new one does not wait for the old leader
    (owner,) = pod.manifest["metadata"]["ownerReferences"]
    scope = f"{owner['name']}-{owner['uid'][:8]}"
    label = {"metadata": {"labels": {SCOPE_LABEL: scope}}}
    pod.host.kube.patch(pod.manifest, label)
    pod.home.mkdir(parents=True, exist_ok=True)
    names = {volume["name"] for volume in pod.manifest["spec"]["volumes"]}
    scripts = pod.files(SCRIPTS) if SCRIPTS in names else {}
    script = _bootstrap(pod.home, environ, passwords, scripts)
    data = pod.volume("data") / "data"
    address = pod.address
    configuration = {
        "scope": scope,
        "name": pod.name,
        "kubernetes": {
            "context": pod.host.context,
            "namespace": pod.namespace,
            "labels": {"isa-cloud.io/patroni": scope},
            "scope_label": SCOPE_LABEL,
            "role_label": f"{SCOPE_LABEL}-role",  # `role` is used by the chart's selector
            "use_endpoints": False,
            "pod_ip": address,
        },
        "restapi": {"listen": f"{address}:8008", "connect_address": f"{address}:8008"},
        "bootstrap": {
            "dcs": {
                "ttl": TTL_SECONDS,
                "loop_wait": LOOP_SECONDS,
                "retry_timeout": 5,
                "maximum_lag_on_failover": 1 << 20,
                "postgresql": {"use_pg_rewind": True, "use_slots": True, "parameters": PARAMETERS},
            },
            "initdb": [{"encoding": "UTF8"}, {"locale": "C"}, "data-checksums"],
            "post_bootstrap": str(script),
        },
        "postgresql": {
            "listen": f"{address}:5432",
            "connect_address": f"{address}:5432",
            "data_dir": str(data),
            "bin_dir": str(postgres.programs()),
            "pgpass": str(pod.home / "pgpass"),
            "authentication": {
                "superuser": {"username": "postgres", "password": passwords["postgres-password"]},
                "replication": {
                    "username": environ["REPMGR_USERNAME"],
                    "password": passwords["repmgr-password"],
                },
            },
            "pg_hba": [
                "host replication all 127.0.0.0/8 scram-sha-256",
                "host all all 127.0.0.0/8 scram-sha-256",
            ],
            "parameters": PARAMETERS,
            "basebackup": [{"checkpoint": "fast"}],  # the default takes minutes
        },
    }
    file = pod.home / "patroni.yaml"
    write_atomic(file, yaml.safe_dump(configuration))
    argv = postgres.unprivileged(sys.executable, "-c", PATRONI, str(file))
    return Launch(tuple(argv), {"KUBECONFIG": str(pod.host.kubeconfig)})


def probe(pod: Pod) -> str:
    """Whether it answers queries, as the image's readiness script asks."""
    password = pod.file("postgresql-creds", "repmgr-password")
    container = next(c for c in pod.containers if c["name"] == CONTAINER)
    user = pod.environment(container)["REPMGR_USERNAME"]
    try:
        with psycopg.connect(
            host=pod.address, user=user, password=password, dbname="postgres", connect_timeout=3
        ) as connection:
            connection.execute("SELECT 1")
    except psycopg.OperationalError as exc:
        return str(exc).strip()
    return ""


def _bootstrap(
    home: Path, environ: dict[str, str], passwords: dict[str, str], scripts: dict[str, str]
) -> Path:
    """The script that makes what the image makes at its first start; Patroni gives it a connection string."""
    user, database = environ["POSTGRES_USER"], environ.get("POSTGRES_DB", "postgres")
    repmgr, check = environ["REPMGR_USERNAME"], environ["POSTGRESQL_SR_CHECK_USERNAME"]
    statements = f"""
        CREATE ROLE "{user}" LOGIN PASSWORD '{passwords["password"]}';
        CREATE DATABASE "{database}" OWNER "{user}";
        CREATE ROLE "{repmgr}" SUPERUSER REPLICATION LOGIN PASSWORD '{passwords["repmgr-password"]}';
        CREATE DATABASE "{environ["REPMGR_DATABASE"]}" OWNER "{repmgr}";
        CREATE ROLE "{check}" LOGIN PASSWORD '{passwords["sr-check-password"]}';
    """
    write_atomic(home / "bootstrap.sql", statements + "".join(scripts.values()))
    script = home / "bootstrap.sh"
    psql = postgres.programs() / "psql"
    text = f'#!/bin/sh\nexec "{psql}" -q -v ON_ERROR_STOP=1 -f "{home}/bootstrap.sql" "$1"\n'
    write_atomic(script, text)
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return script


ENGINE = Engine(CONTAINER, real=True, prepare=prepare, probe=probe, grace=20)
