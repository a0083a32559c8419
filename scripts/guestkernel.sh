#!/bin/bash
# Usage: guestkernel.sh BUSYBOX FOLDER: puts Debian's kernel for virtual and other machines into FOLDER as `vmlinuz` and
# `modules`, those of a machine without hardware, unpacked and not installed.
set -euo pipefail
busybox=$(realpath "$1") target=$2
[ ! -d "$target/modules" ] || exit 0
fail() { echo "martlet: $*" >&2; exit 1; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
chmod 755 "$folder"
mkdir -p "$target"

find_package() {
    apt-cache depends --no-recommends --no-suggests linux-image-amd64 2>/dev/null |
        grep -oE 'linux-image-[0-9][^ ]*' | head -n 1
}
package=$(find_package) || { apt-get update >/dev/null 2>&1; package=$(find_package); } ||
    fail "apt-get knows no linux-image-amd64: is this Debian, and the network there?"
(cd "$folder" && { apt-get download "$package" || { apt-get update && apt-get download "$package"; }; }) >/dev/null 2>&1 ||
    fail "apt-get cannot download Debian's $package: is the network there?"
# Of the drivers only those of virtual hardware and of software devices.
dpkg-deb --fsys-tarfile "$folder"/*.deb | tar -C "$folder" -x --wildcards \
    './boot/vmlinuz-*' './lib/modules/*/modules.*' \
    './lib/modules/*/kernel/arch' './lib/modules/*/kernel/block' './lib/modules/*/kernel/crypto' \
    './lib/modules/*/kernel/fs' './lib/modules/*/kernel/lib' './lib/modules/*/kernel/net' \
    './lib/modules/*/kernel/drivers/block' './lib/modules/*/kernel/drivers/virtio' \
    './lib/modules/*/kernel/drivers/net/*.ko' './lib/modules/*/kernel/drivers/net/vxlan'
cp "$folder"/boot/vmlinuz-* "$target/vmlinuz"
version=$(basename "$folder"/lib/modules/*)
"$busybox" depmod -b "$folder" "$version"
rm -rf "$target/modules.new"
mv "$folder/lib/modules" "$target/modules.new"
mv "$target/modules.new" "$target/modules"
