# Load tests: `simsa loadtest run` and `worker`, with Locust. Build from the root of a checkout, as gateway.Dockerfile:
#   docker build --file deploy/images/loadtest.Dockerfile --tag simsa-loadtest:0.1.0 \
#     --build-arg PYTHON_IMAGE=python:3.11-slim-bookworm@sha256:... --build-arg REVISION="$(git rev-parse HEAD)" .
ARG PYTHON_IMAGE

FROM ${PYTHON_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
COPY requirements/build.txt requirements/loadtest.txt requirements/
RUN python -m venv /build/tools \
    && /build/tools/bin/pip install --no-deps --only-binary=:all: --require-hashes --requirement requirements/build.txt \
    && python -m venv --without-pip /opt/simsa \
    && pip --python /opt/simsa/bin/python install --no-deps --only-binary=:all: --require-hashes \
        --requirement requirements/loadtest.txt
COPY pyproject.toml README.md LICENSE ./
COPY gateway/ gateway/
COPY loadtests/ loadtests/
RUN /build/tools/bin/pip wheel --no-deps --no-build-isolation --no-index --wheel-dir wheels . \
    && pip --python /opt/simsa/bin/python install --no-deps --no-index wheels/*.whl

FROM ${PYTHON_IMAGE}
ARG PYTHON_IMAGE
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="simsa-loadtest" \
    org.opencontainers.image.description="Load tests of serving plans through Simsa, or of an engine by itself" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}" \
    org.opencontainers.image.base.name="${PYTHON_IMAGE}"
RUN python -m pip uninstall --yes pip setuptools wheel \
    && install --directory --owner=10001 --group=10001 --mode=0750 /data
COPY --from=build /opt/simsa /opt/simsa
COPY LICENSE model_registry.yaml /srv/simsa/
ENV PATH=/opt/simsa/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/data \
    SIMSA_DATA_DIR=/data \
    SIMSA_REGISTRY=/srv/simsa/model_registry.yaml
WORKDIR /data
USER 10001:10001
# No HEALTHCHECK: it runs to its end and says by its exit code how it went; a worker that is lost voids the repeat.
HEALTHCHECK NONE
ENTRYPOINT ["simsa"]
CMD ["loadtest", "--help"]
