# What a job runs in: Python, the packages that training, tuning and evaluation need (by hash), and the platform. No Airflow, no root.
#   docker build -f docker/trainer.Dockerfile -t autoglm-trainer .
# BASE_IMAGE: any Debian-like image with Python 3.11. Which build of torch, CPU or CUDA, is decided by where pip looks:
#   --build-arg PIP_FIND_LINKS=/folder/of/wheels, or PIP_INDEX_URL / PIP_EXTRA_INDEX_URL
ARG BASE_IMAGE=python:3.11-slim-bookworm
FROM ${BASE_IMAGE} AS build
ARG TORCH=2.13.0
ARG PIP_FIND_LINKS
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ENV PIP_NO_CACHE_DIR=1 PIP_NO_COMPILE=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python3 -m venv --copies /opt/venv
ENV PATH=/opt/venv/bin:$PATH
# torch alone comes without hashes: its wheel is the platform's own (CPU or CUDA)
RUN pip install --quiet "torch==${TORCH}"
COPY docker/trainer.lock /tmp/trainer.lock
RUN pip install --quiet --no-deps --require-hashes -r /tmp/trainer.lock
COPY pyproject.toml README.md LICENSE /src/
COPY autoglm_ops /src/autoglm_ops
COPY plugins /src/plugins
RUN pip install --quiet --no-deps --no-build-isolation /src && pip uninstall --quiet --yes pip \
 && find /opt/venv -depth \( -name tests -o -name test -o -name __pycache__ -o -name '*.a' -o -path '*/torch/include' \) -exec rm -rf {} +

FROM ${BASE_IMAGE}
RUN groupadd --gid 10001 autoglm && useradd --uid 10001 --gid 10001 --create-home --home-dir /work autoglm
COPY --from=build /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1
USER 10001:10001
WORKDIR /work
ENTRYPOINT []
CMD ["autoglm", "--help"]
