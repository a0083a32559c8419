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
scripts/dockersdk.sh .build/assets/dockersdk || exit 1
# Without it one test skips and says so.
scripts/nvmlpy.sh .build/assets/nvmlpy || true
export MARTLET_BUSYBOX=$PWD/.build/assets/busybox MARTLET_ROOTFS=$PWD/.build/assets/rootfs.tar
export MARTLET_DOCKERSDK=$PWD/.build/assets/dockersdk MARTLET_NVMLPY=$PWD/.build/assets/nvmlpy NO_COLOR=1

# Ends what a run left that crashed or was interrupted: clusters and cgroups named martlet-test-PID of a test process
# that is gone. Their mounts, bridges and rules go with the namespaces once the last process has.
sweep() {
    local left pid name process group
    left=$(ls -d /tmp/martlet-test-[0-9]* /sys/fs/cgroup/{,*/}martlet-test-[0-9]* 2>/dev/null |
        sed -nE 's#.*/(martlet-test-[0-9]+)(-[a-z0-9-]+)?$#\1#p' | sort -u)
    for name in $left; do
        pid=${name#martlet-test-}
        # A zombie is gone too: not every PID 1 reaps.
        ! grep -qE '^State:[[:space:]]+[^ZX]' "/proc/$pid/status" 2>/dev/null || continue
        # Daemons first, which would start again what ends; then shims and containers, until no cgroup has any.
        for process in $(grep -lasE "/tmp/$name[-/]" /proc/[0-9]*/cmdline | cut -d/ -f3); do
            case $(readlink "/proc/$process/exe") in */martlet* | */docker-registry | */dockerd | */containerd*) kill -KILL "$process" 2>/dev/null ;; esac
        done
        for _ in {1..50}; do
            # 0 stands for a process of another pid namespace; for kill it would be our own group.
            group=$(find /sys/fs/cgroup -regex ".*/$name\([-/].*\)?/cgroup.procs" -exec cat {} + 2>/dev/null | sort -u | grep -vx 0)
            [ -n "$group" ] || break
            kill -KILL $group 2>/dev/null
            sleep 0.1
        done
        find /sys/fs/cgroup -depth -type d -regex ".*/$name\([-/].*\)?" -exec rmdir {} + 2>/dev/null
        find /tmp -maxdepth 1 -regex "/tmp/$name\(-.*\)?" -exec rm -rf --one-file-system {} +
    done
}
declare -A jobs=()
finish() {
    local name
    for name in "${!jobs[@]}"; do
        kill -KILL -- "-${jobs[$name]}" 2>/dev/null
        wait "${jobs[$name]}" 2>/dev/null
    done
    [ ${#jobs[@]} = 0 ] || sleep 0.2
    sweep
}
trap finish EXIT
trap 'exit 130' INT TERM HUP

echo "Building programs and tests; five minutes when nothing is built yet."
swift build --build-tests >"$logs/build.log" 2>&1 || {
    grep -E 'error:' "$logs/build.log" | head -n 20
    tail -n 5 "$logs/build.log"
    echo "martlet: the build failed, nothing was tested; the whole log is $logs/build.log" >&2
    exit 1
}

passed=0 failed=0 skipped=0 failures=
begin() { # name, command…
    local name=$1
    shift
    printf '\n== %s\n' "$name"
    # A job of its own group, so that all of it can be ended; a tier that hangs must not hang for ever.
    set -m
    timeout --kill-after=10 "${MARTLET_TIER_TIMEOUT:-60m}" "$@" >"$logs/$name.log" 2>&1 </dev/null &
    jobs[$name]=$!
    set +m
}
end() { # name
    local name=$1 log="$logs/$1.log" line ran bad skip status
    wait "${jobs[$name]}"
    status=$?
    unset "jobs[$name]"
    grep -E '^(✘|➜).*(failed|skipped|recorded an issue)|error:' "$log" | head -n 60
    failures+=$(awk -v tier="$name" '
        /^✘ Test .*recorded an issue/ { print tier ": " substr($0, 1, 600); lines = 10; next }
        /^(↳|  )/ { if (lines-- > 0) print "    " substr($0, 1, 400); next }
        { lines = 0 }' "$log" | head -n 40)$'\n'
    line=$(grep -E 'Test run with [0-9]+ tests?' "$log" | tail -n 1)
    ran=$(grep -oE 'with [0-9]+ tests?' <<<"$line" | grep -oE '[0-9]+' || echo 0)
    skip=$(grep -cE '^➜ Test .* skipped' "$log")
    bad=$(grep -E '^✘ Test .* failed after' "$log" | grep -cvE '^✘ Test run with')
    # A crash prints no closing line, and a filter that matches nothing passes: neither counts as success.
    if [ "$status" != 0 ] && [ "$bad" = 0 ] || [ -z "$line" ] || [ "$ran" = 0 ]; then
        bad=$((bad + 1))
        [ "$status" != 124 ] || echo "tier $name ran longer than ${MARTLET_TIER_TIMEOUT:-60m} and was ended"
        echo "tier $name did not end well (exit $status): the log is $log"
        tail -n 25 "$log"
    fi
    passed=$((passed + (ran > bad + skip ? ran - bad - skip : 0))) failed=$((failed + bad)) skipped=$((skipped + skip))
    echo "$name: $ran tests, $bad failed, $skip skipped"
    sweep
}
tier() {
    begin "$@"
    end "$1"
}
tests=(swift test --skip-build --disable-xctest)
private=(unshare --mount --net --propagation private "$PWD/scripts/private.sh")
tier repository "${tests[@]}" --filter '^RepositoryTests\.'
tier unit "${tests[@]}" --filter '^(?!RepositoryTests|SimulationTests|KernelTests|SystemTests)[A-Za-z0-9_]+Tests\.'
tier simulation "${tests[@]}" --filter '^SimulationTests\.'
tier kernel "${private[@]}" "${tests[@]}" --no-parallel --filter '^KernelTests\.'
# Two halves at once, which wait more than they compute; they share nothing. Then the one that counts what the host has.
system=("${private[@]}" "${tests[@]}" --ignore-lock --no-parallel --filter)
begin docker "${system[@]}" '^SystemTests\.SystemSuite/(Docker|RuntimeEngines)'
# One reads the build's description while it starts, which the other would write.
sleep 60
tier system "${system[@]}" '^SystemTests\.SystemSuite/(?!Docker|RuntimeEngines|Cycles)'
end docker
tier cycles "${system[@]}" '^SystemTests\.SystemSuite/Cycles'
if [ "$(uname -m)" = x86_64 ]; then
    tier machine scripts/machine.sh
    tier systemd scripts/machine.sh -s
else
    printf '\n== machine\nmachine: skipped, it is an x86_64 one and this host is not\n'
fi
# Once more and with what was found, where the end of a long log is all that is read.
grep . <<<"$failures" && echo
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
