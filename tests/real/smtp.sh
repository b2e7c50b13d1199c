#!/usr/bin/env bash
# A mail server that keeps what it receives as files and refuses what a test tells it to (aiosmtpd from PyPI): see smtpd.py.
#   smtp.sh install                    its Python environment into the cache, once
#   smtp.sh certificate DIR            DIR/cert.pem and DIR/key.pem for localhost and 127.0.0.1, self-signed
#   smtp.sh run PORT DIR [OPTION…]     serve on 127.0.0.1:PORT in the foreground, mails under DIR; the options are smtpd.py's
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/cache.sh"
env=aiosmtpd-1.4.6

case ${1:-} in
install) venv "$env" aiosmtpd==1.4.6 ;;
certificate)
  need openssl openssl
  # Not a CA: rustls takes a self-signed certificate for its own issuer, but no CA certificate for a server's.
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -noenc -days 2 -keyout "$2/key.pem" -out "$2/cert.pem" \
    -subj /CN=localhost -addext subjectAltName=DNS:localhost,IP:127.0.0.1 -addext basicConstraints=critical,CA:FALSE 2>/dev/null ;;
run)
  [ -e "$cache/$env/ok" ] || die "aiosmtpd is not installed yet: run tests/real/smtp.sh install"
  mkdir -p "$3"
  exec "$cache/$env/bin/python" "$here/smtpd.py" "${@:2}" ;;
*) usage ;;
esac
