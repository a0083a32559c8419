#!/bin/bash
# make stop: martlet down --all, and the state with it.
set -euo pipefail
cd "$(dirname "$0")/.."
[ "$(id -u)" = 0 ] || { echo "martlet: this needs root: run it as root or with sudo" >&2; exit 1; }
if [ ! -x .build/release/martlet ]; then
    if [ -e /run/martlet ] || [ -e /var/lib/martlet ]; then
        echo "martlet: there is a cluster in /run/martlet and /var/lib/martlet, but no program here to end it: 'make release' first" >&2
        exit 1
    fi
    echo "Nothing to stop: Martlet was not built here."
    exit 0
fi
.build/release/martlet down --all
rm -rf .build/assets
