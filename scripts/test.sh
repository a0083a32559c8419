#!/bin/bash
# make test: every tier that this machine allows, one after another; the last line counts them all.
# The kernel and system tiers run in mount and network namespaces of their own, so that the host's stay untouched.
set -uo pipefail
cd "$(dirname "$0")/.."
scripts/setup.sh test || exit 1
logs=.build/test-logs
mkdir -p "$logs" .build/assets
scripts/busybox.sh .build/assets/busybox || exit 1
scripts/rootfs.sh .build/assets/busybox .build/assets/rootfs.tar || exit 1
export MARTLET_BUSYBOX=$PWD/.build/assets/busybox MARTLET_ROOTFS=$PWD/.build/assets/rootfs.tar

echo "Building programs and tests; five minutes when nothing is built yet."
swift build --build-tests >"$logs/build.log" 2>&1 || { grep -E 'error:' "$logs/build.log" | head -n 20; tail -n 5 "$logs/build.log"; exit 1; }

passed=0 failed=0 skipped=0
tier() { # name, test targets as a filter, prefix command…
    local name=$1 filter=$2 log="$logs/$1.log" line ran bad skip
    shift 2
    printf '\n== %s\n' "$name"
    "$@" swift test --skip-build --disable-xctest --filter "$filter" $serial >"$log" 2>&1
    local status=$?
    grep -E '^(✘|➜).*(failed|skipped|recorded an issue)|error:' "$log" | head -n 60
    line=$(grep -E 'Test run with [0-9]+ tests?' "$log" | tail -n 1)
    ran=$(grep -oE 'with [0-9]+ tests?' <<<"$line" | grep -oE '[0-9]+' || echo 0)
    skip=$(grep -cE '^➜ Test .* skipped' "$log")
    bad=$(grep -cE '^✘ Test .* failed' "$log")
    # A crash prints no closing line, and a filter that matches nothing passes: neither counts as success.
    if [ "$status" != 0 ] && [ "$bad" = 0 ] || [ -z "$line" ] || [ "$ran" = 0 ]; then
        bad=$((bad + 1))
        echo "tier $name did not end well (exit $status): the log is $log"
        tail -n 25 "$log"
    fi
    passed=$((passed + (ran > bad + skip ? ran - bad - skip : 0))) failed=$((failed + bad)) skipped=$((skipped + skip))
    echo "$name: $ran tests, $bad failed, $skip skipped"
}
private=(unshare --mount --net --propagation private "$PWD/scripts/private.sh")
serial="" tier repository '^RepositoryTests\.'
serial="" tier unit '^(?!RepositoryTests|SimulationTests|KernelTests|SystemTests)[A-Za-z]+Tests\.'
serial="" tier simulation '^SimulationTests\.'
serial=--no-parallel tier kernel '^KernelTests\.' "${private[@]}"
serial=--no-parallel tier system '^SystemTests\.' "${private[@]}"
echo
echo "tier machine: not part of this version (QEMU tests come with the whole runtime specification)"
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
