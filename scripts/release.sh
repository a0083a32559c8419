#!/bin/bash
# Builds all programs with optimisation, Swift's libraries inside, debug information left out.
set -euo pipefail
cd "$(dirname "$0")/.."
log=.build/release.log
mkdir -p .build
build() {
    swift build -c release --static-swift-stdlib -Xlinker -s --product "$1" >>"$log" 2>&1 ||
        { { grep -E 'error' "$log" || tail -n 5 "$log"; } | head -n 20 >&2; echo "martlet: the build of $1 failed; the whole log is $log" >&2; exit 1; }
}
: >"$log"
for product in martlet-runtime martlet-shim martlet-nvml martlet-overlay portmap loopback bandwidth martlet; do
    [ ! -t 1 ] || printf '  building %s …\n' "$product"
    build "$product"
done
