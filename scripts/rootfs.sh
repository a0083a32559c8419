#!/bin/bash
# Usage: rootfs.sh BUSYBOX TAR: makes a small root file system tar around a static busybox.
set -euo pipefail
busybox=$1 tar=$2
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
mkdir -p "$folder"/{bin,dev,etc,proc,root,sys,tmp,usr,var,www}
chmod 755 "$folder"
chmod 1777 "$folder/tmp"
cp "$busybox" "$folder/bin/busybox"
for name in $("$busybox" --list); do
    [ "$name" = busybox ] || ln -s busybox "$folder/bin/$name"
done
ln -s ../bin "$folder/usr/bin"
ln -s bin "$folder/sbin"
echo 'root:x:0:0:root:/root:/bin/sh
nobody:x:65534:65534:nobody:/:/bin/false' >"$folder/etc/passwd"
echo 'root:x:0:
nogroup:x:65534:' >"$folder/etc/group"
tar -C "$folder" --owner=0 --group=0 --numeric-owner -cf "$tar" .
