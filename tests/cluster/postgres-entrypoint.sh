#!/bin/sh
# As the official image: a first start makes the database, its user and what /docker-entrypoint-initdb.d says; then the server runs.
set -eu
data=/var/lib/postgresql/data
install -d -o postgres -g postgres "$data" /var/run/postgresql
if ! test -s "$data/PG_VERSION"; then
  install -o postgres -m 600 "$POSTGRES_PASSWORD_FILE" /tmp/password
  su postgres -s /bin/sh -c "initdb -E UTF8 -D $data -U $POSTGRES_USER --pwfile=/tmp/password --auth-host=scram-sha-256 --auth-local=trust" > /dev/null
  rm /tmp/password
  echo 'host all all all scram-sha-256' >> "$data/pg_hba.conf"
  su postgres -s /bin/sh -c "pg_ctl -D $data -w -o '-c listen_addresses=' start" > /dev/null
  psql -q -U "$POSTGRES_USER" -d postgres -c "CREATE DATABASE $POSTGRES_DB"
  for file in /docker-entrypoint-initdb.d/*.sql; do psql -q -U "$POSTGRES_USER" -d "$POSTGRES_DB" -f "$file"; done
  su postgres -s /bin/sh -c "pg_ctl -D $data -w stop" > /dev/null
fi
exec su postgres -s /bin/sh -c "exec postgres -D $data -c listen_addresses='*'"
