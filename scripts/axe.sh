#!/usr/bin/env bash
# Puts axe-core, the accessibility checker, into .browser/ unless it is there: one version, known by its hash.
set -euo pipefail
cd "$(dirname "$0")/.."
version=4.14.1
sha256=29348999450cdf2849a8e70b7912fc2da85a849da39c0d0d5394f51d4a9ed95c # of package/axe.min.js
is_right() { [ -f "$1" ] && echo "$sha256  $1" | sha256sum --check --status; }
if is_right .browser/axe.min.js; then exit 0; fi
command -v npm >/dev/null || { echo "install npm: axe-core $version comes by 'npm pack'" >&2; exit 2; }
mkdir -p .browser
fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
(cd "$fresh" && npm pack --silent "axe-core@$version" >/dev/null && tar -xzf "axe-core-$version.tgz" package/axe.min.js)
is_right "$fresh/package/axe.min.js" || { echo "axe-core $version is not the file that it was: refused" >&2; exit 1; }
mv "$fresh/package/axe.min.js" .browser/axe.min.js
