#!/usr/bin/env bash
# Debian's Redis: on loopback only, nothing on disk unless an option says so.
#   redis.sh run PORT DIR [OPTION…]        serve on 127.0.0.1:PORT in the foreground; options are redis-server's: --appendonly yes
#   redis.sh sentinel PORT DIR NAME MASTER serve as Sentinel on PORT, watching the server on port MASTER under NAME
#   redis.sh cluster PORT…                 make one Cluster of the servers on these ports, started with --cluster-enabled yes
set -euo pipefail
. "$(dirname "$0")/cache.sh"
need redis-server redis-server

case ${1:-} in
run)
  mkdir -p "$3"
  cd "$3"
  exec redis-server --port "$2" --bind 127.0.0.1 --dir "$3" --save '' --appendonly no --daemonize no "${@:4}" ;;
sentinel)
  mkdir -p "$3"
  [ -e "$3/sentinel.conf" ] || cat > "$3/sentinel.conf" <<CONF
port $2
bind 127.0.0.1
dir $3
sentinel monitor $4 127.0.0.1 $5 1
sentinel down-after-milliseconds $4 1000
sentinel failover-timeout $4 5000
CONF
  exec redis-server "$3/sentinel.conf" --sentinel ;;
cluster)
  nodes=()
  for port in "${@:2}"; do nodes+=("127.0.0.1:$port"); done
  redis-cli --cluster create "${nodes[@]}" --cluster-yes >/dev/null
  for port in "${@:2}"; do
    for _ in {1..200}; do
      redis-cli -p "$port" cluster info | grep -q cluster_state:ok && break
      sleep 0.1
    done
  done ;;
*) usage ;;
esac
