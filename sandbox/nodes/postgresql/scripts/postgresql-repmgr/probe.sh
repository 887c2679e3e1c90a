#!/bin/bash
# Liveness and readiness: whether the server answers its owner.
exec psql -w -XtA -h 127.0.0.1 -U "$POSTGRES_USER" -d "$POSTGRES_DB" -c 'SELECT 1'
