# The three programs of a deployment: `webserver` and `daemon`, which are Dagster and nothing of ours, and the code
# location with its workers, `cpu` (the default) or `cuda`. compose.yaml puts them together: docs/deployment.md
#   docker build --target webserver .        docker build --target cuda .
# A tag can be moved: to pin the base image to its bytes, give --build-arg PYTHON_IMAGE=python@sha256:...
ARG PYTHON_IMAGE=python:3.11.14-slim-bookworm

FROM ${PYTHON_IMAGE} AS base
# The folders belong to whoever runs the programs, so that volumes that are mounted on them do, too.
RUN useradd --uid 10001 --create-home phi3 \
    && install --directory --owner phi3 /opt/dagster/dagster_home /var/lib/phi3/home /var/lib/phi3/logs
COPY deployment/dagster.yaml /opt/dagster/dagster_home/
ENV PATH=/opt/venv/bin:${PATH} DAGSTER_HOME=/opt/dagster/dagster_home PHI3_LOGS=/var/lib/phi3/logs \
    DAGSTER_DISABLE_TELEMETRY=1 DO_NOT_TRACK=1
WORKDIR /opt/phi3

FROM base AS build
RUN python -m venv /opt/venv
# Every version that pip takes is the lock's, also of what a package is built with.
COPY requirements.lock ./
ENV PIP_CONSTRAINT=/opt/phi3/requirements.lock PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN pip install --constraint requirements.lock setuptools wheel

FROM build AS build-dagster
RUN pip install --constraint requirements.lock dagster-webserver dagster-postgres

# What the package needs changes seldom, the package often: they are installed one after the other. Of the package only
# what names its needs is here.
FROM build AS build-cpu
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN pip install --no-deps --index-url "${TORCH_INDEX}" "$(grep '^torch==' requirements.lock)"
COPY setup.cfg pyproject.toml README.md ./
COPY phi3_assets/__init__.py phi3_assets/
RUN pip install --constraint requirements.lock --no-build-isolation '.[azure,postgres]'
COPY . .
RUN pip install --no-deps --no-build-isolation --force-reinstall .

# PyPI's torch for Linux is the one for CUDA, and names the versions of NVIDIA's libraries itself.
FROM build AS build-cuda
COPY setup.cfg pyproject.toml README.md ./
COPY phi3_assets/__init__.py phi3_assets/
RUN pip install --constraint requirements.lock --no-build-isolation '.[azure,postgres]'
COPY . .
RUN pip install --no-deps --no-build-isolation --force-reinstall .

FROM base AS dagster
COPY --from=build-dagster /opt/venv /opt/venv
COPY deployment/workspace.yaml ./
USER 10001

FROM dagster AS webserver
EXPOSE 3000
HEALTHCHECK --interval=15s --timeout=10s --start-period=60s \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:3000/server_info', timeout=5)"]
# In a container 0.0.0.0 is the container's own: who reaches it is said by whoever publishes the port.
CMD ["dagster-webserver", "--workspace", "workspace.yaml", "--host", "0.0.0.0", "--port", "3000"]

FROM dagster AS daemon
# Seconds; Dagster's own 1800 would call a daemon healthy for half an hour after its end.
ENV DAGSTER_DAEMON_HEARTBEAT_TOLERANCE=300
HEALTHCHECK --interval=60s --timeout=30s --start-period=60s CMD ["dagster-daemon", "liveness-check"]
CMD ["dagster-daemon", "run", "--workspace", "workspace.yaml"]

FROM base AS location
# libgomp: torch and onnxruntime share it.
RUN apt-get update && apt-get install --yes --no-install-recommends libgomp1=12.2.0-* && rm -rf /var/lib/apt/lists/*
# No `phi3 web` here: its pages are for the one machine that it runs on.
ENV PHI3_HOME=/var/lib/phi3/home PHI3_WEB_PORT=0
USER 10001
EXPOSE 4000
HEALTHCHECK --interval=30s --timeout=20s --start-period=120s \
    CMD ["dagster", "api", "grpc-health-check", "--host", "127.0.0.1", "--port", "4000"]
CMD ["sh", "-c", "phi3 init && exec dagster api grpc --module-name phi3_assets.definitions --host 0.0.0.0 --port 4000"]

FROM location AS cuda
# Read by NVIDIA's container toolkit, which brings the driver in.
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=build-cuda /opt/venv /opt/venv

FROM location AS cpu
COPY --from=build-cpu /opt/venv /opt/venv
