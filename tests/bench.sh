#!/usr/bin/env bash
# Measures everything that docs/performance.md states, in one go (some 40 minutes on two quiet cores), and writes it to a directory:
#   make build && tests/bench.sh target/release/aiops [OUT]
# Each figure is one `aiops bench` command; OUT/all.txt holds what they said. Beside aiops it starts an Alertmanager ($ALERTMANAGER, else
# 0.28.1, built once by tests/real/alertmanager.sh, else Debian's) a PostgreSQL that syncs, and a Redis.
#   BENCH_SECONDS=30 measures longer; BENCH_SHORT=1 is for trying the script: a second each, small sizes, Debian's Alertmanager.
set -euo pipefail
cd "$(dirname "$0")/.."
binary=$(readlink -f "${1:?the binary to measure}")
out=$(mkdir -p "${2:-target/bench}" && readlink -f "${2:-target/bench}")
seconds=${BENCH_SECONDS:-10}
sustained=300 rounds=3 starts=11 idle=10
growth=(--incidents 1000,10000,100000,1000000 --services 10,100,1000,10000 --series 100,1000,10000,100000)
if [ -n "${BENCH_SHORT:-}" ]; then
  seconds=1 sustained=2 rounds=1 starts=3 idle=1
  growth=(--incidents 200,1000 --services 10,100 --series 100,1000 --seconds 1)
fi
work=$(mktemp -d "${TMPDIR:-/tmp}/aiops-bench-sh.XXXXXX")
chmod 711 "$work" # PostgreSQL runs as another user when we are root
peers=()
cleanup() {
  for pid in "${peers[@]}"; do kill "$pid" 2>/dev/null || true; done
  for pid in "${peers[@]}"; do wait "$pid" 2>/dev/null || true; done
  rm -rf "$work"
}
trap cleanup EXIT
: > "$out/all.txt"

free_port() {
  python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}
wait_for() { # SECONDS COMMAND…
  local left=$(($1 * 10))
  shift
  until "$@" > /dev/null 2>&1; do
    left=$((left - 1))
    [ "$left" -gt 0 ] || { echo "bench: $* did not come to be" >&2; return 1; }
    sleep 0.1
  done
}

# figure NAME ARGUMENTS…: one figure, as text for people; a failure is shown and does not end the rest.
failed=0
figure() {
  local name=$1
  shift
  printf '\n### %s\n$ aiops bench %s\n' "$name" "$*" | tee -a "$out/all.txt"
  if ! "$binary" bench "$@" 2>&1 | tee -a "$out/all.txt"; then failed=$((failed + 1)); fi
}

alertmanager=${ALERTMANAGER:-}
[ -n "$alertmanager" ] || [ -n "${BENCH_SHORT:-}" ] || alertmanager=$(tests/real/alertmanager.sh newer || true)
[ -n "$alertmanager" ] || alertmanager=$(command -v prometheus-alertmanager || true)
against=()
if [ -n "$alertmanager" ]; then
  port=$(free_port)
  printf 'route: {receiver: nobody}\nreceivers: [{name: nobody}]\n' > "$work/alertmanager.yml"
  "$alertmanager" --web.listen-address="127.0.0.1:$port" --config.file="$work/alertmanager.yml" --storage.path="$work/am" \
    --cluster.listen-address= --log.level=error > "$work/alertmanager.log" 2>&1 &
  peers+=($!)
  wait_for 20 curl -fs "http://127.0.0.1:$port/-/ready"
  against=(--against "http://127.0.0.1:$port" --against-pid "$!" --disposable loopback)
  "$alertmanager" --version 2>&1 | head -1 | tee -a "$out/all.txt"
else
  echo 'bench: there is no Alertmanager to compare with (tests/deps.sh installs one)' | tee -a "$out/all.txt" >&2
fi

figure 'cold start, memory' start --runs "$starts" --idle "$idle"
figure 'alerts, one a POST' alerts --seconds "$seconds" --rounds "$rounds" "${against[@]}"
figure 'alerts, 1,000 a POST' alerts --batch 1000 --connections 8 --seconds "$seconds" --rounds "$rounds" "${against[@]}"
for pid in "${peers[@]}"; do kill "$pid" 2>/dev/null || true; wait "$pid" 2>/dev/null || true; done
peers=()

if compgen -G '/usr/lib/postgresql/*/bin/initdb' > /dev/null || command -v initdb > /dev/null; then
  port=$(free_port)
  POSTGRES_FSYNC=on tests/real/postgres.sh run "$port" "$work/pg" > "$work/postgres.log" 2>&1 &
  peers+=($!)
  url="postgres://aiops@127.0.0.1:$port/postgres"
  wait_for 60 "$binary" bench alerts --store "$url" --seconds 1 --warm-up 0 --connections 1
  figure 'alerts, one a POST, PostgreSQL' alerts --store "$url" --seconds "$seconds" --rounds "$rounds"
  figure 'alerts, 1,000 a POST, PostgreSQL' alerts --store "$url" --batch 1000 --connections 8 --seconds "$seconds" --rounds "$rounds"
  for pid in "${peers[@]}"; do kill "$pid" 2>/dev/null || true; wait "$pid" 2>/dev/null || true; done
  peers=()
fi

figure 'log lines' logs --seconds "$seconds"
figure 'log lines, none left out' logs --rate 300000 --seconds "$seconds"
figure 'log lines, gzip' logs --gzip --seconds "$seconds"
if command -v redis-server > /dev/null; then
  port=$(free_port)
  tests/real/redis.sh run "$port" "$work/redis" > "$work/redis.log" 2>&1 &
  peers+=($!)
  wait_for 20 redis-cli -p "$port" ping
  redis-server --version | tee -a "$out/all.txt"
  for kind in logs metrics; do
    figure "$kind through Redis" "$kind" --redis "redis://127.0.0.1:$port" --seconds "$seconds"
  done
  kill "${peers[0]}" && wait "${peers[0]}" 2> /dev/null || true
  peers=()
fi
figure 'metric samples' metrics --rate 350000 --seconds "$seconds"
figure 'alert to channel' notify --seconds "$seconds"
figure 'alert to channel, fewer' notify --rate 200 --seconds "$seconds"
figure 'alerts, sustained' alerts --sustained --seconds "$sustained"
figure 'ten times too much' overload --seconds "$sustained" --find "$seconds"
figure 'growth' growth "${growth[@]}"

echo
echo "bench: $failed of the commands above failed; all of it is in $out/all.txt"
[ "$failed" -eq 0 ]
