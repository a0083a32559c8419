#!/bin/bash
# Usage: machine.sh [-s] [FILTER…]: runs tests of the built test bundle in the machine: Debian's kernel with every controller
# on cgroup v2, AppArmor and all capabilities, in QEMU; without a filter those of Tests/Machine/tests. With -s systemd is its
# PID 1, and the tests are those of Tests/Machine/systemd/tests. In the soak those of the file `soak` beside it are run
# too. machine.sh [-s] -c COMMAND runs a shell command there instead. The host's root is the machine's, by 9p and read-only; what the machine writes goes to a disk that is thrown away.
set -euo pipefail
cd "$(dirname "$0")/.."
fail() { echo "martlet: $*" >&2; exit 1; }
[ "$(uname -m)" = x86_64 ] || fail "the machine is an x86_64 one, this host is not"

init=.
if [ "${1:-}" = -s ]; then
    init=systemd
    [ -x /lib/systemd/systemd ] || fail "there is no systemd: apt-get install systemd"
    shift
fi
busybox=$PWD/.build/assets/busybox kernel=$PWD/.build/assets/kernel folder=$PWD/.build/machine
scripts/busybox.sh "$busybox"
scripts/guestkernel.sh "$busybox" "$kernel"
rm -rf "$folder"
mkdir -p "$folder"/{initramfs/{bin,dev,disk,host,proc,root,sys,lib/modules},disk/{programs,assets},exchange}

# Until there is a root: busybox, and the modules that it takes to get one.
cp "$busybox" "$folder/initramfs/bin/busybox"
for applet in sh mount umount mkdir modprobe poweroff switch_root; do ln -s busybox "$folder/initramfs/bin/$applet"; done
ln -s bin "$folder/initramfs/sbin"
cp Tests/Machine/init "$folder/initramfs/init"
(
    cd "$kernel/modules"
    modules=(*/modules.{dep,alias,symbols,builtin})
    for name in virtio_pci virtio_blk 9pnet_virtio 9p ext4 overlay crc32c_generic crc32c-intel libcrc32c; do
        # A line is a module and what it needs: `a.ko: b.ko c.ko`.
        line=$(grep -hE "/$name\.ko:" */modules.dep) || fail "Debian's kernel has no module $name"
        for module in ${line/:/ }; do modules+=("$(echo */)$module"); done
    done
    cp --parents $(printf '%s\n' "${modules[@]}" | sort -u) "$folder/initramfs/lib/modules"
)
(cd "$folder/initramfs" && find . | "$busybox" cpio -o -H newc 2>/dev/null) >"$folder/initramfs.cpio"

# The programs are read from the disk, which is faster than 9p.
cp Tests/Machine/start "$folder/disk/start"
if [ $init = systemd ]; then
    cp Tests/Machine/systemd/start "$folder/disk/systemd"
    # It is installed more than once, and what is for debuggers makes most of it.
    strip -o "$folder/disk/programs/martlet" .build/debug/martlet || fail "there is no .build/debug/martlet: make build"
    mkdir "$folder/disk/source"
    cp --parents -r scripts/install.sh systemd "$folder/disk/source/"
fi
cp "$busybox" "$folder/disk/assets/"
[ ! -e .build/assets/rootfs.tar ] || cp .build/assets/rootfs.tar "$folder/disk/assets/"
for name in martletPackageTests.xctest martlet-runtime martlet-shim martlet-nvml martlet-overlay portmap loopback bandwidth; do
    [ ! -x ".build/debug/$name" ] || cp --reflink=auto ".build/debug/$name" "$folder/disk/programs/"
done
if [ "${1:-}" = -c ]; then
    [ $# = 2 ] || fail "machine.sh: -c takes one command"
    printf '%s\n' "$2" >"$folder/exchange/command"
else
    [ -x "$folder/disk/programs/martletPackageTests.xctest" ] || fail "there is no test bundle in .build/debug: make build"
    filters=("$@")
    lists=(Tests/Machine/$init/tests)
    [ -z "${MARTLET_SOAK:-}" ] || [ ! -e Tests/Machine/$init/soak ] || lists+=(Tests/Machine/$init/soak)
    [ $# -gt 0 ] || mapfile -t filters < <(grep -hvE '^(#|$)' "${lists[@]}")
    {
        printf 'exec /machine/programs/martletPackageTests.xctest --testing-library swift-testing --no-parallel'
        for filter in "${filters[@]}"; do printf ' --filter %q' "$filter"; done
        echo
    } >"$folder/exchange/command"
fi
mke2fs -q -t ext4 -E lazy_itable_init=1,lazy_journal_init=1,root_owner=0:0 -d "$folder/disk" "$folder/disk.img" 6G >/dev/null
rm -rf "$folder/disk" "$folder/initramfs"

# In the foreground's group, so that whoever ends this script's group ends the machine too.
limit=${MARTLET_MACHINE_TIMEOUT:-30m} shared=security_model=none,multidevs=remap
timeout --foreground --kill-after=10 "$limit" nice -n 10 qemu-system-x86_64 -accel tcg,thread=multi -cpu max -smp 2 -m "${MARTLET_MACHINE_MEMORY:-2560}" \
    -nodefaults -display none -no-reboot -serial "file:$folder/console" \
    -kernel "$kernel/vmlinuz" -initrd "$folder/initramfs.cpio" \
    -append 'console=ttyS0 loglevel=4 panic=-1 mitigations=off apparmor=1 security=apparmor cgroup_no_v1=all hugepages=4' \
    -drive "file=$folder/disk.img,format=raw,if=virtio,cache=unsafe" \
    -virtfs "local,path=/,mount_tag=root,readonly=on,$shared" \
    -virtfs "local,path=$kernel/modules,mount_tag=modules,readonly=on,$shared" \
    -virtfs "local,path=$folder/exchange,mount_tag=exchange,$shared" </dev/null &
machine=$!
trap '[ -z "$machine" ] || kill "$machine" 2>/dev/null; rm -f "$folder/disk.img"' EXIT
trap 'exit 130' INT TERM HUP
# What the machine writes is shown as it comes.
until [ -e "$folder/exchange/output" ] || ! kill -0 "$machine" 2>/dev/null; do sleep 0.2; done
[ ! -e "$folder/exchange/output" ] || tail -n +1 --pid="$machine" -f "$folder/exchange/output"
ended=0
wait "$machine" || ended=$?
machine=""
[ "$ended" != 124 ] || fail "the machine ran longer than $limit and was ended"
[ -s "$folder/exchange/status" ] || {
    tail -n 20 "$folder/console" >&2
    fail "the machine ended early (qemu: $ended), its console is $folder/console"
}
exit "$(cat "$folder/exchange/status")"
