#!/usr/bin/env bash
# Pins every dependency of pyproject.toml with its hashes. Needs `uv` on PATH; the results name no index.
set -euo pipefail
cd "$(dirname "$0")/.."
pin() { uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-header "$@"; }
pin pyproject.toml --output-file requirements/runtime.txt
pin pyproject.toml --group dev --output-file requirements/dev.txt
pin --group deploy --constraints requirements/dev.txt --output-file requirements/deploy.txt
pin --group deploy-crds --output-file requirements/deploy-crds.txt
pin pyproject.toml --extra loadtest --output-file requirements/loadtest.txt
echo 'setuptools>=77' | pin - --output-file requirements/build.txt
printf 'compose-spec==0.2.1\nhadolint-bin==2.15.1\n' | pin - --no-deps --output-file requirements/deploy-images.txt
