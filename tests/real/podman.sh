#!/usr/bin/env bash
# A real container engine, Debian's podman with runc, that touches nothing of the machine's own: images, containers and settings live in
# the cache.
#   podman.sh install         what it needs, and base images under the names that deploy/Dockerfile pins, made from Debian packages and the
#                             machine's own Rust toolchain: no image registry is asked; and those that tests/compose.sh and
#                             tests/systemd.sh start
#   podman.sh run ARGS…       podman ARGS…
#   podman.sh compose ARGS…   podman-compose ARGS…
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/cache.sh"

home=$cache/podman
rust=localhost/rust:1.95-slim-bookworm
debian=localhost/debian:bookworm-slim

# Written anew each time: cheap, and what is tested is what stands here.
configure() {
  mkdir -p "$home/tmp"
  # runc and cgroupfs work with every cgroup version, and without systemd; limits that a container inside a sandbox may set.
  cat > "$home/containers.conf" <<'TOML'
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
[network]
network_backend = "netavark"
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1000:1000"]
log_driver = "k8s-file"
init_path = "/usr/bin/catatonit"
TOML
  printf '[storage]\ndriver = "overlay"\ngraphroot = "%s"\nrunroot = "%s"\n' "$home/storage" "$home/run" > "$home/storage.conf"
  # Build caches are kept where temporary files are.
  export CONTAINERS_CONF=$home/containers.conf CONTAINERS_STORAGE_CONF=$home/storage.conf TMPDIR=$home/tmp
}

engine() {
  need podman podman
  configure
  command podman "$@"
}

# Debian's root file system. What the machine trusts, the images trust.
import_debian() {
  local root
  root=$(mktemp -d "$home/tmp/root.XXXXXX")
  debootstrap --variant=minbase --include=ca-certificates bookworm "$root" > "$home/debootstrap.log" ||
    die "debootstrap failed; see $home/debootstrap.log"
  cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
  tar c -C "$root" . | engine import --quiet - "$debian" > /dev/null
  rm -rf "$root"
}

# image NAME:TAG < CONTAINERFILE, with this machine's toolchain at /toolchain, and this folder at /real; quick if nothing has changed.
image() {
  engine build --quiet --layers --network=host --volume "$(rustc --print sysroot):/toolchain:ro" --volume "$here:/real:ro" --tag "$1" - > /dev/null ||
    die "the image $1 cannot be made"
}

# The name that the compose file pins.
pinned() { sed -n "s|^ *image: \($1:.*\)|localhost/\1|p" "$here/../../docker-compose.yml"; }

install_debian='apt-get update -qq && apt-get install -qq -y --no-install-recommends'

make_images() {
  # What an earlier run left behind: half a root file system, images of builds that are long past.
  rm -rf "$home"/tmp/root.*
  engine image prune --force --filter until=24h > /dev/null
  engine image exists "$debian" || import_debian
  image "$rust" <<DOCKERFILE
FROM $debian
ENV PATH=/usr/local/cargo/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin CARGO_HOME=/usr/local/cargo
RUN $install_debian gcc libc6-dev > /dev/null
LABEL toolchain="$(rustc --version)"
RUN tar c -C /toolchain --exclude=lib/rustlib/src --exclude=lib/rustlib/etc bin/cargo bin/rustc lib | tar x -C /usr/local
DOCKERFILE
  image localhost/aiops-test/peers <<DOCKERFILE
FROM $debian
RUN $install_debian prometheus prometheus-alertmanager postgresql redis-server wget > /dev/null && \\
    ln -s prometheus-alertmanager /usr/bin/alertmanager && \\
    install -d -o 65534 -g 65534 /prometheus /alertmanager && \\
    install -d -m 1777 /var/lib/postgresql/data && install -d -m 3777 /var/run/postgresql
LABEL entrypoint="$(sha256sum < "$here/postgres-entrypoint.sh")"
RUN cp /real/postgres-entrypoint.sh /usr/local/bin/docker-entrypoint.sh
DOCKERFILE
  image localhost/aiops-test/systemd <<DOCKERFILE
FROM $debian
RUN $install_debian systemd systemd-sysv procps curl > /dev/null
DOCKERFILE
  local name entry
  while read -r name entry; do
    printf 'FROM localhost/aiops-test/peers\nENTRYPOINT %s\n' "$entry" | image "$(pinned "$name")"
  done <<'TABLE'
prom/prometheus ["/bin/prometheus"]
prom/alertmanager ["/bin/alertmanager"]
redis []
postgres ["docker-entrypoint.sh"]
TABLE
}

case ${1:-} in
install)
  [ "$(id -u)" = 0 ] || die 'only root can make root file systems for images'
  need podman podman && need runc runc && need catatonit catatonit && need debootstrap debootstrap && need rustc rustup
  venv podman-compose-1.6.0 podman-compose==1.6.0
  mkdir -p "$cache"
  exec 9> "$cache/podman.lock"
  flock 9
  configure
  make_images ;;
run) shift; engine "$@" ;;
compose)
  shift
  configure
  exec "$cache/podman-compose-1.6.0/bin/podman-compose" "$@" ;;
*) usage ;;
esac
