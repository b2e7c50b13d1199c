#!/usr/bin/env bash
# Measures what the README states: the cold start of `aiops serve` (from exec to the first line, which comes once it takes requests) and its
# memory when idle. Give it the optimised binary: make build && tests/figures.sh target/release/aiops
set -euo pipefail
binary=$(readlink -f "${1:?the binary to measure}")
work=$(mktemp -d "${TMPDIR:-/tmp}/aiops-figures.XXXXXX")
trap 'kill "${server:-}" 2>/dev/null || true; rm -rf "$work"' EXIT
cd "$work"
export AIOPS_LISTEN=127.0.0.1:0

# Starts it with an empty data directory; the milliseconds until its first line go to standard output.
start() {
  rm -rf data out && mkfifo out
  local began ended
  began=$(date +%s%N)
  "$binary" serve > out 2>/dev/null &
  server=$!
  exec 3< out
  read -r _ <&3
  ended=$(date +%s%N)
  took=$(((ended - began) / 1000000))
}

times=()
for _ in $(seq 11); do
  start
  times+=("$took")
  kill "$server" && wait "$server" || true
  exec 3<&-
done
median=$(printf '%s\n' "${times[@]}" | sort -n | sed -n 6p)

start
sleep 10
rss=$(awk '/^VmRSS:/ { printf "%.0f", $2 / 1024 }' "/proc/$server/status")

echo "cold start: $median ms (median of 11, ${times[*]})"
echo "idle memory: $rss MB (VmRSS after 10 s)"
echo "machine: $(nproc) cores, $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1), $(uname -sr)"
