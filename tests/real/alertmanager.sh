#!/usr/bin/env bash
# Debian's Alertmanager, without the cluster port that it would open otherwise.
#   alertmanager.sh run PORT CONFIG DIR    serve on 127.0.0.1:PORT in the foreground, silences and its notification log under DIR
#   alertmanager.sh newer                  build 0.28.1, which speed is compared with, and print where it is
set -euo pipefail
. "$(dirname "$0")/cache.sh"

case ${1:-}/$# in
run/4)
  need prometheus-alertmanager prometheus-alertmanager
  exec prometheus-alertmanager --web.listen-address="127.0.0.1:$2" --config.file="$3" --storage.path="$4" --cluster.listen-address= ;;
newer/1)
  use_go
  build() { GOBIN=$PWD CGO_ENABLED=0 go install github.com/prometheus/alertmanager/cmd/alertmanager@v0.28.1; }
  once alertmanager-0.28.1 build
  echo "$cache/alertmanager-0.28.1/alertmanager" ;;
*) usage ;;
esac
