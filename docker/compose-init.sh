#!/bin/sh
# Before anything else starts: the database's password, made once, and the platform's own clone of this checkout. Runs are cut from that
# clone and pushed back to it, so nothing of yours is written to; commit, and `docker-compose up -d` again, to bring it up to date.
set -eu
umask 077
if ! test -s /secrets/postgres; then
  password=$(python -c 'import secrets; print(secrets.token_urlsafe(32))')
  printf 'postgres:5432:*:airflow:%s\n' "$password" > /secrets/pgpass  # libpq's own way: no address and no command line holds it
  printf '%s' "$password" > /secrets/postgres
fi
# /source is another user's; a clone's other half takes this from no variable but from a file
export GIT_CONFIG_GLOBAL=/tmp/gitconfig
git config --global safe.directory '*'
test -e /checkout/.git || git clone --quiet --no-hardlinks /source /checkout
git -C /checkout pull --quiet --ff-only
git -C /checkout log -1 --format='the checkout is at %h %s'
