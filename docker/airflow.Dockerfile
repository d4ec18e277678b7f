# What schedules: Airflow with the platform's DAGs and plugins, and the stages that need no torch. Training goes to the trainer image.
#   docker build -f docker/airflow.Dockerfile -t autoglm-airflow .
ARG BASE_IMAGE=python:3.11-slim-bookworm
FROM ${BASE_IMAGE} AS build
ENV PIP_NO_CACHE_DIR=1 PIP_NO_COMPILE=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python3 -m venv --copies /opt/venv
ENV PATH=/opt/venv/bin:$PATH
COPY docker/airflow.lock /tmp/airflow.lock
RUN pip install --quiet --no-deps --require-hashes -r /tmp/airflow.lock
COPY pyproject.toml README.md LICENSE /src/
COPY autoglm_ops /src/autoglm_ops
COPY plugins /src/plugins
RUN pip install --quiet --no-deps --no-build-isolation /src && pip uninstall --quiet --yes pip \
 && find /opt/venv -depth \( -name tests -o -name test -o -name __pycache__ \) -exec rm -rf {} +

FROM ${BASE_IMAGE}
RUN groupadd --gid 10001 autoglm && useradd --uid 10001 --gid 10001 --create-home --home-dir /home/autoglm autoglm
COPY --from=build /opt/venv /opt/venv
RUN command -v git >/dev/null || { apt-get update -q && apt-get install -q -y --no-install-recommends git && rm -rf /var/lib/apt/lists/*; }
# the checkout, a git clone, is mounted here (a volume, or git-sync): runs are cut from it, and pushed back to it
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 AUTOGLM_CHECKOUT=/checkout AUTOGLM_HOME=/home/autoglm/runs \
    AIRFLOW_HOME=/home/autoglm/airflow AIRFLOW__CORE__DAGS_FOLDER=/checkout/dags AIRFLOW__CORE__PLUGINS_FOLDER=/checkout/plugins \
    AIRFLOW__CORE__LOAD_EXAMPLES=False
USER 10001:10001
WORKDIR /home/autoglm
CMD ["airflow", "scheduler"]
