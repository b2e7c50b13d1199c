#!/bin/sh
# Makes the secrets of docker-compose.yml in ./secrets (or $AIOPS_SECRETS); those that are there stay as they are.
set -eu
cd "$(dirname "$0")/../.."
dir=${AIOPS_SECRETS:-secrets}

# The directory keeps others on this machine out; the files are handed to containers that run as users of their own, and must read them.
umask 077
mkdir -p "$dir"
secret() { head -c 24 /dev/urandom | od -An -v -tx1 | tr -d ' \n'; }
make() {
  [ -s "$dir/$1" ] && return
  cat > "$dir/$1.new"
  chmod 444 "$dir/$1.new"
  mv "$dir/$1.new" "$dir/$1"
  echo "made $dir/$1"
}
secret | make intake_token
secret | make postgres_password
secret | make redis_password
printf 'postgres://aiops:%s@postgres/aiops' "$(cat "$dir/postgres_password")" | make database_url
printf 'requirepass %s\n' "$(cat "$dir/redis_password")" | make redis_conf
