#!/usr/bin/env bash
# Builds deploy/Dockerfile and runs the image; brings docker-compose.yml up, and follows an alert through it: sent to Alertmanager, an
# incident in aiops, a message on its standard output. Podman stands for Docker. Prometheus and Alertmanager are Debian's, under the names
# that the compose file pins (tests/real/podman.sh). Uses free ports of loopback, and leaves no container, volume or network.
set -euo pipefail
cd "$(dirname "$0")/.."
podman() { tests/real/podman.sh run "$@"; }
step() { printf 'compose: %4ds %s\n' "$SECONDS" "$*"; }
fail() { printf 'compose: %s\n' "$*" >&2; exit 1; }

# until SECONDS WHAT COMMAND…
until_true() {
  local deadline=$((SECONDS + $1)) what=$2
  shift 2
  until "$@" > /dev/null 2>&1; do
    [ "$SECONDS" -lt "$deadline" ] || fail "not in time: $what"
    sleep 0.5
  done
}

tests/real/podman.sh install
step 'base images are there'

image=aiops:0.1.0
# The host's network is for crates only: they come as they do for cargo outside.
podman build --network=host --format docker -q -f deploy/Dockerfile -t "$image" . > /dev/null
step 'the image is built'

[ "$(podman image inspect "$image" --format '{{.Config.User}} {{.Config.StopSignal}} {{json .Config.Entrypoint}}{{json .Config.Cmd}}')" = \
  '65532:65532 SIGTERM ["aiops"]["serve"]' ] || fail 'the image is not what the Dockerfile says'
# Nobody gets in by a door that was left open: without a credential for senders it refuses to listen.
refusal=$(podman run --rm --read-only --cap-drop=all "$image" 2>&1) && fail 'it listens on all addresses without any credential'
grep -q 'set intake.sources.alertmanager.bearer' <<< "$refusal" || fail "the refusal does not say what to do: $refusal"

work=$(mktemp -d)
export COMPOSE_PROJECT_NAME=aiops-test-$$ AIOPS_SECRETS=$work/secrets
compose() { tests/real/podman.sh compose "$@"; }
cleanup() {
  local status=$?
  if [ "$status" != 0 ]; then
    for name in aiops aiops-full alertmanager prometheus postgres redis; do podman logs --tail 40 "${COMPOSE_PROJECT_NAME}_${name}_1" >&2 || true; done
  fi
  compose --profile small --profile full down --volumes --timeout 5 > /dev/null 2>&1 || true
  rm -rf "$work"
  exit "$status"
}
trap cleanup EXIT

read -r AIOPS_PORT ALERTMANAGER_PORT PROMETHEUS_PORT < <(python3 -c '
import socket
held = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
print(*[s.getsockname()[1] for s in held])')
export AIOPS_PORT ALERTMANAGER_PORT PROMETHEUS_PORT

deploy/compose/secrets.sh > /dev/null
[ "$(stat -c %a "$AIOPS_SECRETS")" = 700 ] || fail 'the secrets can be read by others'
before=$(cat "$AIOPS_SECRETS"/*)
deploy/compose/secrets.sh > /dev/null
[ "$(cat "$AIOPS_SECRETS"/*)" = "$before" ] || fail 'a second run makes other secrets'

container() { echo "${COMPOSE_PROJECT_NAME}_$1_1"; }
# up PROFILE SERVICE…: only these, and nothing that they would wait for.
up() {
  compose --profile "$1" up -d --no-build --no-deps "${@:2}" > "$work/up.log" 2>&1 || { cat "$work/up.log" >&2; fail "compose up $1"; }
  # What the compose file calls healthy; podman without systemd asks only when it is told to.
  for name in "${@:2}"; do until_true 120 "$name is healthy" podman healthcheck run "$(container "$name")"; done
}
# alert_becomes_incident SERVICE: and somebody was told.
alert_becomes_incident() {
  aiops=$1
  inside() { podman exec "$(container "$aiops")" aiops "$@"; }
  curl -fsS -H 'content-type: application/json' "http://127.0.0.1:$ALERTMANAGER_PORT/api/v2/alerts" -d '[{
    "labels": {"alertname": "DiskFull", "service": "warehouse", "severity": "critical"},
    "annotations": {"summary": "the disk of warehouse is full"}}]'
  told() { podman logs "$(container "$aiops")" 2> /dev/null | grep 'What broke:'; }
  until_true 60 'a message on standard output' told
  incident=$(inside incident list --json | jq -r '.items[] | select(.service == "warehouse") | .id')
  [ -n "$incident" ] || fail 'there is no incident'
}

up small aiops alertmanager prometheus
step 'all services of the small profile are healthy'

status=$(podman exec "$(container aiops)" cat /proc/1/status)
podman exec "$(container aiops)" touch /etc/aiops/x 2> /dev/null && fail 'the root can be written to'
podman exec "$(container aiops)" touch /tmp/x || fail 'it has no room for temporary files'
grep -q '^CapBnd:.0000000000000000$' <<< "$status" || fail 'it has capabilities'
grep -q '^NoNewPrivs:.1$' <<< "$status" || fail 'it may gain privileges'
podman inspect "$(container aiops)" --format '{{.HostConfig.Memory}}' | grep -qx 536870912 || fail 'its memory is not limited'

alert_becomes_incident aiops
step "the alert became incident $incident, and somebody was told"

scraped() { curl -fsSG "http://127.0.0.1:$PROMETHEUS_PORT/api/v1/query" --data-urlencode 'query=up{job="aiops"}' | jq -e '.data.result[0].value[1] == "1"'; }
until_true 60 'Prometheus reads the metrics of aiops' scraped
inside check > "$work/check.log" 2>&1 || { cat "$work/check.log" >&2; fail 'aiops check, inside'; }

# A backup out of a running container; killed, and started on what was restored.
inside backup /var/lib/aiops/drill.tar.gz > /dev/null
podman stop --time 0 "$(container aiops)" > /dev/null 2>&1
compose --profile small run --rm -T aiops restore --force /var/lib/aiops/drill.tar.gz > "$work/restore.log" 2>&1 ||
  { cat "$work/restore.log" >&2; fail 'restore'; }
grep -q 'the old store is in /var/lib/aiops/replaced-' "$work/restore.log" || fail "restore says something else: $(cat "$work/restore.log")"
up small aiops
inside incident show "$incident" > /dev/null || fail 'the incident is gone'
step 'killed, restored, started: the incident is there'
compose --profile small down --volumes --timeout 5 > /dev/null 2>&1

# Elasticsearch and Ollama cannot be had as Debian packages: aiops says that they are away, and does its work.
up full postgres redis
up full aiops-full alertmanager prometheus
alert_becomes_incident aiops-full
no_password=$(podman exec "$(container postgres)" psql -w -U aiops -h 127.0.0.1 -d aiops -c 'SELECT 1' 2>&1) && fail 'PostgreSQL lets in who has no password'
grep -q 'no password supplied' <<< "$no_password" || fail "PostgreSQL refuses for another reason: $no_password"
[ "$(podman exec "$(container redis)" redis-cli ping)" != PONG ] || fail 'Redis lets in who has no password'
step "the full profile: the alert became incident $incident in PostgreSQL"

token=$(podman exec "$(container aiops-full)" cat /var/lib/aiops/admin.token)
api() { curl -fsS -H "authorization: Bearer $token" -H 'content-type: application/json' "http://127.0.0.1:$AIOPS_PORT/api/v1/$1" "${@:2}"; }
api logs -d '[{"service": "warehouse", "msg": "hello"}]' > /dev/null
judged() { curl -fsS "http://127.0.0.1:$AIOPS_PORT/metrics" | grep -q '^aiops_detect_records_total [1-9]'; }
until_true 60 'the detectors got a log line' judged
api status | jq -e '.bus.kind == "redis" and .bus.error == null' > /dev/null || fail "the telemetry bus: $(api status | jq -c .bus)"
step 'the full profile: a log line went through Redis to the detectors'
