#!/bin/bash
# Debian's PostgreSQL behind the interface of the official image, as far as docker-compose.yml uses it: a cluster is made at the first
# start, for POSTGRES_USER with the password in POSTGRES_PASSWORD_FILE, with the database POSTGRES_DB.
set -euo pipefail
PATH=$(echo /usr/lib/postgresql/*/bin):$PATH
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  initdb --username="$POSTGRES_USER" --pwfile="$POSTGRES_PASSWORD_FILE" --auth=scram-sha-256 -D "$PGDATA" > /dev/null
  echo 'host all all all scram-sha-256' >> "$PGDATA/pg_hba.conf"
  echo "CREATE DATABASE $POSTGRES_DB;" | postgres --single -D "$PGDATA" postgres > /dev/null
fi
# Podman lays a /run of its own over that of a read-only image, so the socket is elsewhere than Docker would let it be.
exec postgres -D "$PGDATA" -c listen_addresses='*' -c unix_socket_directories=/tmp
