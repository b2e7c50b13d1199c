#!/usr/bin/env bash
# Installs what the tests run against: Debian packages when we are root, then mail server and language model into the cache.
# Quick when nothing is missing. Without root it prints which packages are missing, and fails. `deps.sh containers`: what tests/compose.sh
# needs instead.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

# What the tests use, and the Debian package that brings it: a command, or a file by its path.
packages() {
  if [ "$1" = containers ]; then cat <<'TABLE'
podman podman
runc runc
/usr/lib/podman/netavark netavark
/usr/lib/podman/aardvark-dns aardvark-dns
iptables iptables
ip iproute2
catatonit catatonit
debootstrap debootstrap
python3 python3
curl curl
jq jq
TABLE
  else cat <<'TABLE'
prometheus prometheus
prometheus-alertmanager prometheus-alertmanager
/usr/lib/postgresql/*/bin/initdb postgresql
pg_dump postgresql-client
redis-server redis-server
redis-cli redis-tools
/usr/lib/python3/dist-packages/redis/__init__.py python3-redis
javac openjdk-17-jdk-headless
mvn maven
ansible-playbook ansible-core
systemd-analyze systemd
python3 python3
g++ g++
/usr/include/nlohmann/json.hpp nlohmann-json3-dev
/usr/include/stb/stb_image.h libstb-dev
curl curl
jq jq
openssl openssl
setpriv util-linux
/usr/lib/*/faketime/libfaketimeMT.so.1 libfaketime
TABLE
  fi
}

missing_packages() {
  local thing package
  while read -r thing package; do
    case $thing in
      /*) compgen -G "$thing" >/dev/null ;;
      *) command -v "$thing" >/dev/null ;;
    esac || echo "$package"
  done < <(packages "$1")
  # A Python can be there without what makes its environments.
  python3 -c 'import ensurepip, venv' 2>/dev/null || echo python3-venv
}

# Installs packages without letting them start their services: the tests run servers of their own, and one on a standard port would be
# a surprise to whoever owns the machine.
install_packages() {
  local policy=/usr/sbin/policy-rc.d
  exec 9> /run/lock/aiops-tests-deps
  flock 9
  if [ ! -e "$policy" ]; then
    trap 'rm -f /usr/sbin/policy-rc.d' EXIT
    printf '#!/bin/sh\nexit 101\n' > "$policy"
    chmod +x "$policy"
  fi
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq
  apt-get install -qq -o DPkg::Lock::Timeout=600 -y --no-install-recommends "$@" >/dev/null
}

mapfile -t missing < <(missing_packages "${1:-}")
if [ ${#missing[@]} -gt 0 ]; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    install_packages "${missing[@]}"
  else
    echo "The tests need Debian packages that are missing here: ${missing[*]}" >&2
    echo "Install them: sudo apt-get install --no-install-recommends ${missing[*]}" >&2
    exit 1
  fi
fi

[ "${1:-}" = containers ] && exit
"$here/real/smtp.sh" install
"$here/real/ollama.sh" install
"$here/real/opensearch.sh" install
"$here/kubernetes.sh" install
