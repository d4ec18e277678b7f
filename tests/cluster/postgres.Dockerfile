# Debian's PostgreSQL behind the variables and folders of the official image, for where that one cannot be had.
ARG BASE_IMAGE
FROM ${BASE_IMAGE}
RUN apt-get update -q && apt-get install -q -y --no-install-recommends postgresql && rm -rf /var/lib/apt/lists/* \
 && ln -s /usr/lib/postgresql/*/bin/* /usr/local/bin/ || true
COPY postgres-entrypoint.sh /entrypoint.sh
CMD ["sh", "/entrypoint.sh"]
