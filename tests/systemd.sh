#!/usr/bin/env bash
# Runs deploy/systemd/aiops.service as it is, under a real systemd in a container, with all that locks it in: it starts, gets a secret by
# LoadCredential, takes an alert, is reloaded, backed up from outside, restarted by the watchdog when it hangs, and stopped. The binary is
# that of the image which tests/compose.sh built.
set -euo pipefail
cd "$(dirname "$0")/.."
podman() { tests/real/podman.sh run "$@"; }
step() { printf 'systemd: %4ds %s\n' "$SECONDS" "$*"; }
fail() { printf 'systemd: %s\n' "$*" >&2; exit 1; }

tests/real/podman.sh install
work=$(mktemp -d)
name=aiops-test-systemd-$$
inside() { podman exec "$name" "$@"; }
cleanup() {
  local status=$?
  if [ "$status" != 0 ]; then inside journalctl --no-pager -n 60 >&2 || true; fi
  podman rm --force --time 0 "$name" > /dev/null 2>&1 || true
  rm -rf "$work"
  exit "$status"
}
trap cleanup EXIT
# until_true SECONDS WHAT COMMAND…
until_true() {
  local deadline=$((SECONDS + $1)) what=$2
  shift 2
  until "$@" > /dev/null 2>&1; do
    [ "$SECONDS" -lt "$deadline" ] || fail "not in time: $what"
    sleep 0.5
  done
}

mkdir -p "$work/etc/secrets" "$work/units/aiops.service.d"
cp deploy/systemd/aiops.service "$work/units/"
cp -r playbooks "$work/etc/"
printf '0123456789abcdef\n' > "$work/etc/secrets/intake"
chmod 600 "$work/etc/secrets/intake"
printf 'listen: "0.0.0.0:8080"\nintake: {sources: {prometheus: {bearer: [{file: /run/credentials/aiops.service/intake}]}}}\n' > "$work/etc/aiops.yaml"
# What an operator would write by `systemctl edit aiops`; the watchdog is quicker, so that nobody waits a minute for it.
printf '[Service]\nLoadCredential=intake:/etc/aiops/secrets/intake\nWatchdogSec=5\n' > "$work/units/aiops.service.d/here.conf"
id=$(podman create aiops:0.1.0)
podman cp "$id:/usr/local/bin/aiops" "$work/aiops"
podman rm --volumes "$id" > /dev/null

# systemd makes the name spaces and filters of the unit itself, and needs the rights to do so.
podman run -d --name "$name" --privileged --systemd=always localhost/aiops-test/systemd /sbin/init > /dev/null
until_true 120 'systemd answers' inside systemctl list-units
# As on a host: without it a container's systemd cannot hand a unit the directory of its credentials.
inside mount --make-rshared /
podman cp "$work/aiops" "$name:/usr/local/bin/aiops"
podman cp "$work/etc/." "$name:/etc/aiops"
podman cp "$work/units/." "$name:/etc/systemd/system"
inside chown -R root:root /etc/aiops
inside systemctl daemon-reload

inside systemctl start aiops || fail 'it does not start'
# Type=notify: it takes alerts from the moment in which `start` returned.
inside curl -fsS -H 'authorization: Bearer 0123456789abcdef' -H 'content-type: application/json' http://127.0.0.1:8080/api/v2/alerts \
  -d '[{"labels":{"alertname":"DiskFull","service":"warehouse","severity":"critical"}}]' > /dev/null || fail 'it takes no alert'
listed() { inside aiops incident list --server http://127.0.0.1:8080 --token-file /var/lib/aiops/admin.token | grep warehouse; }
until_true 60 'an incident' listed
step 'it starts locked in, and makes an incident of an alert'

pid() { inside systemctl show -P MainPID aiops; }
first=$(pid)
inside systemctl reload aiops
reloaded() { inside journalctl -u aiops --no-pager | grep -i 'settings'; }
until_true 60 'it has read its settings anew' reloaded
[ "$(pid)" = "$first" ] || fail 'a reload restarts it'

# Root makes the backup, while the service runs as its own user.
inside env AIOPS_DATA_DIR=/var/lib/aiops aiops backup /root/backup.tar.gz > /dev/null || fail 'no backup'
inside env AIOPS_DATA_DIR=/var/lib/aiops aiops backup verify /root/backup.tar.gz | grep -q 'incidents 1' || fail 'the backup lacks the incident'
inside find /var/lib/private/aiops -user root | grep . && fail 'root left files that the service cannot write'
step 'reloaded, and backed up by root'

inside kill -STOP "$first"
another() { local now; now=$(pid) && [ "$now" != 0 ] && [ "$now" != "$first" ] && inside systemctl is-active aiops; }
until_true 120 'the watchdog restarts what hangs' another
until_true 60 'the incident is there after it' listed
step 'the watchdog restarted it when it hung'

inside systemctl stop aiops
[ "$(inside systemctl show -P Result aiops)" = success ] || fail 'it does not end in order'
step 'stopped in order'
