#!/usr/bin/env bash
# A real Ollama with a model of 0.7 MB and random weights: the true wire protocol, loading times, schema-bound sampling and error bodies,
# and no sense in anything that it says. What stays safe with this helper stays safe with any.
#   ollama.sh install            build the server into the cache, once (two to five minutes)
#   ollama.sh run PORT DIR       serve on 127.0.0.1:PORT in the foreground, models and keys under DIR
#   ollama.sh model PORT NAME    make the model and register it under NAME with the server on PORT
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/cache.sh"
version=0.17.4
home=$cache/ollama-$version

build() {
  need g++ g++
  need python3 python3-venv
  [ -e /usr/include/nlohmann/json.hpp ] || die "nlohmann/json.hpp is missing: install the Debian package nlohmann-json3-dev (tests/deps.sh does)"
  [ -e /usr/include/stb/stb_image.h ] || die "stb/stb_image.h is missing: install the Debian package libstb-dev (tests/deps.sh does)"
  use_go

  # A Go module's archive leaves out directories that hold no Go file, and with them three C++ headers. Debian packages two; the third
  # comes in the source distribution of its Python binding.
  local audio=1.71
  python3 -m venv pip
  pip/bin/pip download --quiet --disable-pip-version-check --no-deps --no-binary miniaudio --dest . "miniaudio==$audio"
  mkdir -p include/miniaudio
  tar -xzOf "miniaudio-$audio.tar.gz" "miniaudio-$audio/miniaudio/miniaudio.h" > include/miniaudio/miniaudio.h
  rm -rf pip "miniaudio-$audio.tar.gz"

  CGO_ENABLED=1 CGO_CPPFLAGS="-I$PWD/include" GOBIN=$PWD nice -n 15 \
    go install -trimpath -ldflags="-s -w -X github.com/ollama/ollama/version.Version=$version" "github.com/ollama/ollama@v$version"
}

# The model file. One thread: several would wait for each other in a busy loop, which is slower on a machine that has other work.
modelfile() {
  cat <<'MODEL'
FROM ./tiny.gguf
TEMPLATE """{{ range .Messages }}<|im_start|>{{ .Role }}
{{ .Content }}<|im_end|>
{{ end }}<|im_start|>assistant
"""
PARAMETER stop <|im_end|>
PARAMETER num_thread 1
MODEL
}

installed() { [ -e "$home/ok" ] || die "Ollama is not built yet: run tests/real/ollama.sh install"; }

case ${1:-}/$# in
install/1) once "ollama-$version" build ;;
run/3)
  installed
  mkdir -p "$3"
  OLLAMA_HOST=127.0.0.1:$2 OLLAMA_MODELS=$3/models HOME=$3 exec "$home/ollama" serve ;;
model/3)
  installed
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  cd "$work"
  python3 "$here/tiny_gguf.py" tiny.gguf
  modelfile > Modelfile
  OLLAMA_HOST=127.0.0.1:$2 HOME=$work "$home/ollama" create "$3" -f Modelfile ;;
*) usage ;;
esac
