#!/usr/bin/env bash
# Runs the README's commands (its ```sh blocks) as a newcomer would: in their order, from a clean clone, without a terminal.
#   `aiops serve` runs on in the background, on a free port instead of 8080; a question is answered with y; cargo may not use the network
#   (the dependencies are there, because the clone's origin was built). `make test` is left out when it is what called us.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d "${TMPDIR:-/tmp}/aiops-readme.XXXXXX")
server=
cleanup() {
  if [ -n "$server" ]; then kill "$server" 2>/dev/null || true; wait "$server" 2>/dev/null || true; fi
  rm -rf "$work"
}
trap cleanup EXIT

export CARGO_NET_OFFLINE=true
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$root/target}
export CARGO_INSTALL_ROOT=$work/installed
export PATH=$CARGO_INSTALL_ROOT/bin:$PATH
while read -r name; do unset "$name"; done < <(compgen -e | grep '^AIOPS_' || true)

# What is committed is what a newcomer gets.
git clone -q "$root" "$work/aiops"
cd "$work/aiops"

free_port() {
  python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

serve() {
  AIOPS_LISTEN=127.0.0.1:$port aiops serve > "$work/serve.log" 2>&1 &
  server=$!
  for _ in $(seq 200); do
    grep -q '^aiops listens on ' "$work/serve.log" && return
    kill -0 "$server" 2>/dev/null || break
    sleep 0.1
  done
  cat "$work/serve.log" >&2
  return 1
}

port=$(free_port)
export AIOPS_SERVER=http://127.0.0.1:$port
run=0
while IFS= read -r command; do
  echo "readme: $command"
  case $command in
    'make test')
      if [ -n "${MAKELEVEL:-}" ]; then echo 'readme: it is what called this'; else make test; fi ;;
    'aiops serve') serve ;;
    *)
      command=${command//127.0.0.1:8080/127.0.0.1:$port}
      # bash -e: a README's command must not fail in its middle either.
      printf 'y\n' | bash -euo pipefail -c "$command" ;;
  esac
  run=$((run + 1))
done < <(awk '/^```sh$/ { on = 1; next } /^```$/ { on = 0 } on && NF' README.md)

[ "$run" -ge 8 ] || { echo "readme: only $run commands were found" >&2; exit 1; }
echo "readme: $run commands work"
