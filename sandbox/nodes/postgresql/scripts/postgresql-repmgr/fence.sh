#!/bin/bash
# What repmgrd calls on a primary that has lost its standbys: the server stops, and the pod starts again.
. /opt/bitnami/scripts/postgresql-repmgr/common.sh
say "has lost its standbys, and stops"
stop_server
kill -TERM 1
