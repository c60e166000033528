#!/bin/sh
# Stands in for `runuser -u USER -- COMMAND…` where there is only one user.
shift 3
exec "$@"
