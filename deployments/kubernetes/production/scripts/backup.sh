#!/bin/sh
# Backs the platform up: `backup.sh`, or `backup.sh postgresql minio`. All of it is in `isa backup --help`.
set -eu
exec isa backup --env production "$@"
