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
# torch alone comes without hashes: its wheel is the platform's own (CPU or CUDA)
COPY docker/trainer.lock /tmp/trainer.lock
# Compiled is what is imported here, and no more: each job would compile it anew (8 s of a pod's start), all of it would be 280 MB.
RUN python3 -m venv --copies /opt/venv && export PATH=/opt/venv/bin:$PATH \
 && pip install --quiet "torch==${TORCH}" \
 && pip install --quiet --no-deps --require-hashes -r /tmp/trainer.lock \
 && pip uninstall --quiet --yes pip \
 && find /opt/venv -depth \( -name tests -o -name test -o -name __pycache__ -o -name '*.a' -o -path '*/torch/include' \) -exec rm -rf {} + \
 && HOME=/tmp python -c 'import torch, deepspeed, optuna, boto3, transformers.models.glm.modeling_glm' 2>/dev/null \
 && echo /opt/autoglm > /opt/venv/lib/python3.11/site-packages/autoglm.pth \
 && printf '#!/opt/venv/bin/python\nfrom autoglm_ops.cli.main import main\n\nmain()\n' > /opt/venv/bin/autoglm && chmod 755 /opt/venv/bin/autoglm

FROM ${BASE_IMAGE}
RUN groupadd --gid 10001 autoglm && useradd --uid 10001 --gid 10001 --create-home --home-dir /work autoglm
COPY --from=build /opt/venv /opt/venv
# The platform is a layer of its own: a change of code costs its 3 MB, not the packages' 1.2 GB once more, here and on every node.
COPY autoglm_ops /opt/autoglm/autoglm_ops
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1
USER 10001:10001
WORKDIR /work
ENTRYPOINT []
CMD ["autoglm", "--help"]
