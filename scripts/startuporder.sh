#!/bin/bash
# Makes scripts/startup.order anew: the functions that our small programs execute first, in that order. The linker puts
# them side by side in release builds, because a start spends more time on finding pages than on what is in them. Call it
# when the runtime's way has changed much, and wait a quarter of an hour, for it goes step by step; names that are not there
# any more do no harm.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/setup.sh bench
scripts/busybox.sh .build/assets/busybox
scripts/rootfs.sh .build/assets/busybox .build/assets/rootfs.tar
swift build -c release --static-swift-stdlib --product martlet-runtime
# A copy: what make release strips later has no names.
mkdir -p .build/startuporder
cp .build/release/martlet-runtime .build/startuporder/
export MARTLET_BENCH_BIN=$PWD/.build/startuporder
unshare --mount --net --propagation private scripts/private.sh python3 scripts/startuporder.py
# The build does not look at the list by itself.
rm -f .build/release/{martlet-runtime,martlet-shim,martlet-overlay,portmap,loopback,bandwidth}
