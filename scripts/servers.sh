#!/usr/bin/env bash
# Puts the programs of PostgreSQL, Redis and nginx on this machine (Debian or Ubuntu) unless they are there. The tests
# start servers of their own from them; no server is left running.
set -euo pipefail
wanted=()
command -v initdb >/dev/null || compgen -G "/usr/lib/postgresql/*/bin/initdb" >/dev/null || wanted+=(postgresql)
command -v redis-server >/dev/null || wanted+=(redis-server)
command -v nginx >/dev/null || [ -x /usr/sbin/nginx ] || wanted+=(nginx-light)
[ ${#wanted[@]} -gt 0 ] || exit 0
command -v apt-get >/dev/null || { echo "install with this system's own tools: ${wanted[*]}" >&2; exit 2; }
as_root=()
if [ "$(id -u)" != 0 ]; then
  command -v sudo >/dev/null || { echo "run this as root: apt-get install ${wanted[*]} needs it" >&2; exit 2; }
  as_root=(sudo)
fi
echo "installing for the tests: ${wanted[*]}"
log=$(mktemp)
policy=/usr/sbin/policy-rc.d
made_policy=
trap 'rm -f "$log"; [ -z "$made_policy" ] || "${as_root[@]}" rm -f "$policy"' EXIT
{
  if [ ! -e "$policy" ]; then # the packages would start servers of their own
    made_policy=yes
    printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$policy"
    "${as_root[@]}" chmod 755 "$policy"
  fi
  if [ ! -e /etc/postgresql-common/createcluster.conf ]; then # and PostgreSQL's would make a database first
    "${as_root[@]}" mkdir -p /etc/postgresql-common
    echo "create_main_cluster = false" | "${as_root[@]}" tee /etc/postgresql-common/createcluster.conf
  fi
  "${as_root[@]}" apt-get update
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends \
    -o Dpkg::Options::=--force-confold "${wanted[@]}"
} >"$log" 2>&1 || { cat "$log" >&2; exit 1; }
