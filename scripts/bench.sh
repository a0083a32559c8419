#!/bin/bash
# make bench: ratios to the named peers, measured in one run (docs/benchmarks.md explains each line).
set -euo pipefail
cd "$(dirname "$0")/.."
echo "Benchmarks: about twenty minutes once everything is built."
scripts/setup.sh bench
scripts/release.sh
scripts/busybox.sh .build/assets/busybox
scripts/rootfs.sh .build/assets/busybox .build/assets/rootfs.tar
# Namespaces of their own: the host's network, mounts and docker state stay untouched.
exec unshare --mount --net --propagation private scripts/private.sh python3 scripts/bench.py "$@"
