#!/usr/bin/env bash
# Puts Chromium and fonts with Hangul on this machine (Debian or Ubuntu) unless they are there, for the tests of pages.
set -euo pipefail
if [ -x /usr/bin/chromium ] && compgen -G "/usr/share/fonts/opentype/noto/NotoSansCJK*" >/dev/null; then exit 0; fi
command -v apt-get >/dev/null || { echo "install Chromium as /usr/bin/chromium with this system's own tools" >&2; exit 2; }
as_root=()
if [ "$(id -u)" != 0 ]; then
  command -v sudo >/dev/null || { echo "run this as root: apt-get install chromium needs it" >&2; exit 2; }
  as_root=(sudo)
fi
echo "installing Chromium for the tests of pages"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
{
  "${as_root[@]}" apt-get update
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends chromium fonts-noto-cjk
} >"$log" 2>&1 || { cat "$log" >&2; exit 1; }
