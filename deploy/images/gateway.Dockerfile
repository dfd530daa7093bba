# The gateway. Build from the root of a checkout, with a base pinned by digest:
#   docker build --file deploy/images/gateway.Dockerfile --tag simsa-gateway:0.1.0 \
#     --build-arg PYTHON_IMAGE=python:3.11-slim-bookworm@sha256:... --build-arg REVISION="$(git rev-parse HEAD)" .
# Without PYTHON_IMAGE the build fails, so that nobody builds on whatever a tag means that day.
ARG PYTHON_IMAGE

FROM ${PYTHON_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
COPY requirements/build.txt requirements/runtime.txt requirements/
RUN python -m venv /build/tools \
    && /build/tools/bin/pip install --no-deps --only-binary=:all: --require-hashes --requirement requirements/build.txt \
    && python -m venv --without-pip /opt/simsa \
    && pip --python /opt/simsa/bin/python install --no-deps --only-binary=:all: --require-hashes \
        --requirement requirements/runtime.txt
COPY pyproject.toml README.md LICENSE ./
COPY gateway/ gateway/
COPY loadtests/ loadtests/
RUN /build/tools/bin/pip wheel --no-deps --no-build-isolation --no-index --wheel-dir wheels . \
    && pip --python /opt/simsa/bin/python install --no-deps --no-index wheels/*.whl

FROM ${PYTHON_IMAGE}
ARG PYTHON_IMAGE
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="simsa-gateway" \
    org.opencontainers.image.description="Inference gateway that turns claims about candidate language models into evidence" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}" \
    org.opencontainers.image.base.name="${PYTHON_IMAGE}"
# Nothing is installed from here on. The numeric user needs no entry in /etc/passwd; all that it writes is in /data.
RUN python -m pip uninstall --yes pip setuptools wheel \
    && install --directory --owner=10001 --group=10001 --mode=0750 /data
COPY --from=build /opt/simsa /opt/simsa
COPY LICENSE model_registry.yaml /srv/simsa/
ENV PATH=/opt/simsa/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/data \
    SIMSA_DATA_DIR=/data \
    SIMSA_HOST=0.0.0.0 \
    SIMSA_PORT=8080 \
    SIMSA_REGISTRY=/srv/simsa/model_registry.yaml
WORKDIR /srv/simsa
USER 10001:10001
EXPOSE 8080
# Alive, not ready: a gateway whose engines are all down is no better for being started again.
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen(f\"http://127.0.0.1:{os.environ['SIMSA_PORT']}/health\", timeout=4)"]
ENTRYPOINT ["simsa"]
CMD ["serve"]
