#!/usr/bin/env bash
# Puts PostgreSQL's programs on this machine (Debian or Ubuntu) unless they are there. The tests start servers of their
# own from them; no server is left running.
set -euo pipefail
if command -v initdb >/dev/null || compgen -G "/usr/lib/postgresql/*/bin/initdb" >/dev/null; then exit 0; fi
command -v apt-get >/dev/null || { echo "install PostgreSQL 14 or newer with this system's own tools: initdb is missing" >&2; exit 2; }
as_root=()
if [ "$(id -u)" != 0 ]; then
  command -v sudo >/dev/null || { echo "run this as root: apt-get install postgresql needs it" >&2; exit 2; }
  as_root=(sudo)
fi
echo "installing PostgreSQL for the tests"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
{
  if [ ! -e /etc/postgresql-common/createcluster.conf ]; then # the package would make a server of its own and start it
    "${as_root[@]}" mkdir -p /etc/postgresql-common
    echo "create_main_cluster = false" | "${as_root[@]}" tee /etc/postgresql-common/createcluster.conf
  fi
  "${as_root[@]}" apt-get update
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends \
    -o Dpkg::Options::=--force-confold postgresql
} >"$log" 2>&1 || { cat "$log" >&2; exit 1; }
