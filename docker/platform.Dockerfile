# Everything on one machine: what docker-compose.yaml starts. Airflow, the stages, training and the servers share one environment, as
# they do after `make install`; on a cluster, the two lean images beside this file take its place.
#   docker build -f docker/platform.Dockerfile -t autoglm-platform .
# BASE_IMAGE and where pip looks for torch: as in trainer.Dockerfile.
ARG BASE_IMAGE=python:3.11-slim-bookworm
FROM ${BASE_IMAGE} AS build
ARG TORCH=2.13.0
ARG PIP_FIND_LINKS
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ENV PIP_NO_CACHE_DIR=1 PIP_NO_COMPILE=1 PIP_DISABLE_PIP_VERSION_CHECK=1
COPY docker/platform.lock /tmp/platform.lock
# Compiled is what is imported here, and no more: each job would compile it anew (8 s of a pod's start), all of it would be 280 MB.
RUN python3 -m venv --copies /opt/venv && export PATH=/opt/venv/bin:$PATH \
 && pip install --quiet "torch==${TORCH}" \
 && pip install --quiet --no-deps --require-hashes -r /tmp/platform.lock \
 && pip uninstall --quiet --yes pip \
 && find /opt/venv -depth \( -name tests -o -name test -o -name __pycache__ -o -name '*.a' -o -path '*/torch/include' \) -exec rm -rf {} + \
 && HOME=/tmp python -c 'import torch, deepspeed, optuna, boto3, mlflow, dvc.repo, great_expectations, fastapi, airflow.sdk, transformers.models.glm.modeling_glm' 2>/dev/null \
 && printf '/opt/autoglm\n/opt/autoglm/plugins\n' > /opt/venv/lib/python3.11/site-packages/autoglm.pth \
 && printf '#!/opt/venv/bin/python\nfrom autoglm_ops.cli.main import main\n\nmain()\n' > /opt/venv/bin/autoglm && chmod 755 /opt/venv/bin/autoglm

FROM ${BASE_IMAGE}
RUN groupadd --gid 10001 autoglm && useradd --uid 10001 --gid 10001 --create-home --home-dir /work autoglm \
 && install -d -o 10001 -g 10001 /checkout /work/runs /secrets
RUN command -v git >/dev/null || { apt-get update -q && apt-get install -q -y --no-install-recommends git && rm -rf /var/lib/apt/lists/*; }
COPY --from=build /opt/venv /opt/venv
COPY autoglm_ops /opt/autoglm/autoglm_ops
COPY plugins /opt/autoglm/plugins
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 AUTOGLM_CHECKOUT=/checkout AUTOGLM_HOME=/work/runs
USER 10001:10001
WORKDIR /work
ENTRYPOINT []
CMD ["autoglm", "--help"]
