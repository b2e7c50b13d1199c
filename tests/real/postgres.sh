#!/usr/bin/env bash
# A PostgreSQL cluster of its own, apart from any that the machine runs: user `aiops` without a password, TCP on loopback only.
#   PostgreSQL's fsync is off unless POSTGRES_FSYNC=on says otherwise, as a measurement must.
#   postgres.sh run PORT DIR              serve on 127.0.0.1:PORT in the foreground; DIR is made on the first run and kept for the next
#   postgres.sh standby PORT DIR PRIMARY  the same, following the cluster on 127.0.0.1:PRIMARY until it is promoted
set -euo pipefail
. "$(dirname "$0")/cache.sh"

# Debian keeps the server's programs off the PATH, one directory per major version; elsewhere they are on it.
programs() {
  local newest
  newest=$(printf '%s\n' /usr/lib/postgresql/*/bin | sort -V | tail -n 1)
  [ -x "$newest/initdb" ] && echo "$newest" && return
  need initdb postgresql
  dirname "$(command -v initdb)"
}

# Sets bin, dir and as: the programs, the directory, and what runs a program as somebody who may serve.
enter() {
  bin=$(programs)
  as=()
  mkdir -p "$1"
  dir=$(cd "$1" && pwd)
  if [ "$(id -u)" = 0 ]; then  # PostgreSQL refuses to run as root
    user=postgres
    id "$user" >/dev/null 2>&1 || user=nobody
    chown "$user" "$dir"
    as=(setpriv "--reuid=$user" "--regid=$(id -g "$user")" --clear-groups --)
    "${as[@]}" test -x "$dir" || die "$dir is out of reach for the user $user: choose another TMPDIR"
  fi
  cd "$dir"  # the user may not even see where we were
}

# Without fsync: tests end processes, not the machine, and what a process wrote survives its end.
serve() {
  exec "${as[@]}" "$bin/postgres" -D "$dir" -p "$1" -c listen_addresses=127.0.0.1 -c unix_socket_directories= \
    -c max_connections=200 -c fsync="${POSTGRES_FSYNC:-off}"
}

case ${1:-}/$# in
run/3)
  enter "$3"
  [ -e PG_VERSION ] ||
    "${as[@]}" "$bin/initdb" --pgdata="$dir" --username=aiops --auth=trust --encoding=UTF8 --locale=C.UTF-8 --no-sync --no-instructions
  serve "$2" ;;
standby/4)
  enter "$3"
  if [ ! -e PG_VERSION ]; then
    chmod 700 "$dir"
    "${as[@]}" "$bin/pg_basebackup" --host=127.0.0.1 "--port=$4" --username=aiops "--pgdata=$dir" \
      --write-recovery-conf --wal-method=stream --checkpoint=fast --no-sync
  fi
  serve "$2" ;;
*) usage ;;
esac
