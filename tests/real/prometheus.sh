#!/usr/bin/env bash
# Debian's Prometheus, with remote write and reload by HTTP allowed so that a test can feed and change it. It sends a firing alert every 5 s
# rather than every minute: the first one finds no Alertmanager, because Prometheus looks for them only once it runs.
#   prometheus.sh run PORT CONFIG DIR    serve on 127.0.0.1:PORT in the foreground, data under DIR
set -euo pipefail
. "$(dirname "$0")/cache.sh"

case ${1:-}/$# in
run/4)
  need prometheus prometheus
  exec prometheus --web.listen-address="127.0.0.1:$2" --config.file="$3" --storage.tsdb.path="$4" \
    --web.enable-lifecycle --web.enable-remote-write-receiver --rules.alert.resend-delay=5s ;;
*) usage ;;
esac
