#!/bin/sh
# Deploys the platform: `deploy.sh`, or `deploy.sh --only postgresql`. All of it is in `isa deploy --help`.
set -eu
exec isa deploy --env production "$@"
