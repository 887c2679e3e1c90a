#!/bin/sh
# /usr/bin/docker-entrypoint.sh of the MinIO image, as far as the chart relies on it: its arguments are the command.
exec "$@"
