#!/bin/bash
# make fuzz: feeds the parsers of runtime and shim with libFuzzer, which every Swift toolchain for Linux has.
#   FUZZ_SECONDS  for each target, 60 unless given
#   FUZZ_TARGETS  names, all unless given
# Inputs that were of use stay in .build/fuzz/corpus for the next time. Exit status 1 when something was found.
set -uo pipefail
cd "$(dirname "$0")/.."
fail() { echo "martlet: $*" >&2; exit 2; }
scripts/setup.sh fuzz || exit 2
seconds=${FUZZ_SECONDS:-60}
[[ $seconds =~ ^[1-9][0-9]{0,5}$ ]] || fail "FUZZ_SECONDS is no number of seconds: $seconds"
home=.build/fuzz log=.build/fuzz/build.log
mkdir -p $home/corpus $home/findings
program=$home/build/release/martlet-fuzz

# The one file of dependencies is the other builds'; this build has none.
restore() { [ ! -e $home/Package.resolved ] || mv $home/Package.resolved Package.resolved; }
trap 'restore; [ -z "${pid:-}" ] || kill "$pid" 2>/dev/null' EXIT
trap 'exit 130' INT TERM
[ ! -e Package.resolved ] || cp -p Package.resolved $home/Package.resolved
[ ! -t 1 ] || echo "  building the parsers with coverage and the address sanitizer …"
# -enable-testing: the targets look into the modules as tests do.
MARTLET_FUZZ=1 swift build -c release --scratch-path $home/build --product martlet-fuzz \
    -Xswiftc -enable-testing -Xswiftc -sanitize=fuzzer,address -Xcc -fsanitize=fuzzer-no-link,address >$log 2>&1
built=$?
restore
[ $built = 0 ] || { grep -E 'error' $log | head -n 20 >&2; fail "the build failed; the whole log is $log"; }

# The runtime's own reports of crashes would wait for this terminal; libFuzzer has its own.
export SWIFT_BACKTRACE=enable=no ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1
rm -rf $home/seeds && mkdir -p $home/seeds && $program seeds $home/seeds || fail "the program does not start"
mapfile -t known < <($program list)
targets=()
for line in "${known[@]}"; do
    [[ -n ${FUZZ_TARGETS:-} && " $FUZZ_TARGETS " != *" ${line% *} "* ]] || targets+=("$line")
done
[ ${#targets[@]} -gt 0 ] || fail "FUZZ_TARGETS names none of: ${known[*]% *}"
echo "Fuzzing: ${#targets[@]} targets, $seconds s each, $((${#targets[@]} * seconds / 60)) minutes; logs and findings are in $home"

found=0
for line in "${targets[@]}"; do
    name=${line% *} longest=${line#* }
    mkdir -p "$home/corpus/$name"
    # Ten seconds or 2 GiB for an input of a few kilobytes are findings, and 512 MiB at once too.
    FUZZ_TARGET=$name $program -max_total_time="$seconds" -max_len="$longest" -dict=Fuzz/words.dict \
        -timeout=10 -rss_limit_mb=2048 -malloc_limit_mb=512 -detect_leaks=0 -print_final_stats=1 \
        -artifact_prefix="$home/findings/$name-" "$home/corpus/$name" "$home/seeds/$name" \
        >"$home/$name.log" 2>&1 </dev/null &
    pid=$!
    wait "$pid"
    status=$?
    # One that was found out had no time to remove its files.
    rm -rf "/dev/shm/martlet-fuzz-$pid"
    awk -v name="$name" '
        / cov: / { for (i = 1; i < NF; i++) { if ($i == "cov:") cov = $(i + 1); if ($i == "corp:") corp = $(i + 1) } }
        /number_of_executed_units/ { runs = $2 } /average_exec_per_sec/ { rate = $2 } /peak_rss_mb/ { rss = $2 }
        END { printf "  %-10s %9d inputs, %6d/s, %5d edges, corpus %s, %d MiB\n", name, runs, rate, cov, corp, rss }' \
        "$home/$name.log"
    [ $status = 0 ] && continue
    found=$((found + 1))
    grep -aE '^does not hold:|Fatal error|^==.*ERROR|^SUMMARY' "$home/$name.log" | cut -c 1-300 | head -n 4 | sed 's/^/    /'
    input=$(grep -aoE "$home/findings/$name-[a-z0-9-]+" "$home/$name.log" | tail -n 1)
    echo "    again with: SWIFT_BACKTRACE=enable=no FUZZ_TARGET=$name $program ${input:-(no input was kept)}"
done
[ $found = 0 ] || { echo "Fuzzing: $found targets with findings"; exit 1; }
echo "Fuzzing: nothing found"
