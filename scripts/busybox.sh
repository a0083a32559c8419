#!/bin/bash
# Usage: busybox.sh TARGET: puts a static busybox at TARGET: the installed one if it is static, else the one of
# Debian's package busybox-static, unpacked and not installed.
set -euo pipefail
target=$1
[ ! -x "$target" ] || exit 0
mkdir -p "$(dirname "$target")"
installed=$(command -v busybox || true)
if [ -n "$installed" ] && ! ldd "$installed" >/dev/null 2>&1; then
    cp "$installed" "$target"
    exit 0
fi
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
chmod 755 "$folder"
cd "$folder"
apt-get download busybox-static >/dev/null 2>&1 || { apt-get update >/dev/null 2>&1 && apt-get download busybox-static >/dev/null 2>&1; } ||
    { echo "martlet: apt-get cannot download Debian's busybox-static: is the network there?" >&2; exit 1; }
dpkg-deb -x busybox-static_*.deb .
cd - >/dev/null
cp "$folder/bin/busybox" "$target"
