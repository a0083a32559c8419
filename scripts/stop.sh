#!/bin/bash
# make stop: martlet down --all, and the state with it.
set -euo pipefail
cd "$(dirname "$0")/.."
[ "$(id -u)" = 0 ] || { echo "martlet: this needs root: run it as root or with sudo" >&2; exit 1; }
[ -x .build/release/martlet ] || { echo "Nothing to stop: Martlet was not built here."; exit 0; }
.build/release/martlet down --all
rm -rf .build/assets
