# The code location and its worker in one image; run it with a volume for the home:
#   docker build -t phi3-assets . && docker run -p 3000:3000 -v phi3-home:/home/phi3/home phi3-assets
# It starts `dagster dev`, for one person. A deployment for a team (PostgreSQL, webserver, daemon) is another matter.
FROM python:3.11-slim-bookworm

# libgomp: torch and onnxruntime share it.
RUN apt-get update && apt-get install --yes --no-install-recommends libgomp1 && rm -rf /var/lib/apt/lists/*
RUN useradd --create-home phi3
WORKDIR /home/phi3/app

# TORCH_INDEX chooses the build of torch: the default serves machines without a GPU and saves several GB;
# for CUDA give --build-arg TORCH_INDEX=https://pypi.org/simple
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
COPY requirements.lock ./
RUN pip install --no-cache-dir --no-deps --index-url ${TORCH_INDEX} "$(grep '^torch==' requirements.lock)" \
    && pip install --no-cache-dir --no-deps --requirement requirements.lock

COPY . .
RUN pip install --no-cache-dir --no-deps --no-build-isolation . && chown -R phi3 .
USER phi3
ENV PHI3_HOME=/home/phi3/home DAGSTER_HOME=/home/phi3/home/.dagster DO_NOT_TRACK=1
VOLUME /home/phi3/home
EXPOSE 3000
CMD ["sh", "-c", "phi3 init && exec dagster dev --workspace workspace.yaml --host 0.0.0.0"]
