#!/bin/bash
# Usage: gpucheck.sh TARGET: packs what Tests/Hardware/gpu-check needs on a machine that has nothing but a GPU and its driver: our
# programs from BUILD (.build/release) with the libraries that they load, a static busybox, and a root file system with busybox,
# glibc and the CUDA program. TARGET is a folder, or a tar when it ends in .tar: of busybox, and of what busybox uncompresses.
set -euo pipefail
cd "$(dirname "$0")/.."
fail() { echo "martlet: $*" >&2; exit 1; }
target=$1 build=${BUILD:-.build/release}
folder=$target
case $target in
    *.tar) folder=$(mktemp -d) && trap 'rm -rf "$folder"' EXIT ;;
    *) [ ! -e "$target" ] || fail "$target is there already: remove it, or give another" ;;
esac
mkdir -p "$folder"/{lib,root}
scripts/busybox.sh .build/assets/busybox
cp .build/assets/busybox "$folder/busybox"

# Of a library's and all that it loads in turn: name and path, a line each; glibc's own are left out, which belong to a linker.
libraries() {
    ldd "$@" 2>/dev/null | awk '$2 == "=>" && $3 ~ /^\// { print $1, $3 }' | sort -u |
        grep -vE '^(libc|libm|libdl|libpthread|librt|libresolv|libutil)\.so'
}
for name in martlet martlet-runtime martlet-shim martlet-nvml martlet-overlay portmap; do
    [ -x "$build/$name" ] || fail "there is no $build/$name: make release"
    strip -o "$folder/$name" "$build/$name"
done
while read -r name path; do cp -L "$path" "$folder/lib/$name"; done < <(libraries "$build/martlet" "$build/martlet-nvml")

# Debian's layout. The folders that libraries of drivers are bound into are there, and glibc is of this machine.
root=$folder/root
compiler=$(command -v gcc || command -v clang) || fail "there is neither gcc nor clang: apt-get install gcc"
triple=$(uname -m)-linux-gnu
mkdir -p "$root"/{dev,etc,proc,root,sys,tmp,usr/{bin,lib/"$triple",lib64}}
for name in bin lib lib64; do ln -s "usr/$name" "$root/$name"; done
chmod 1777 "$root/tmp"
"$compiler" -O2 -Wall -Wextra -Werror -std=gnu17 -s -o "$root/usr/bin/cudacheck" Tests/Hardware/cudacheck.c -ldl
cp .build/assets/busybox "$root/usr/bin/busybox"
for name in $("$root/usr/bin/busybox" --list); do [ -e "$root/usr/bin/$name" ] || ln -s busybox "$root/usr/bin/$name"; done
linker=$(ldd "$root/usr/bin/cudacheck" | grep -oE '/[^ ]*/ld-linux[^ ]*')
cp -L "$linker" "$root$(dirname "$linker")/"
# Those that libcuda and nvidia-smi ask for.
from=$(dirname "$(ldd "$root/usr/bin/cudacheck" | awk '$1 == "libc.so.6" { print $3 }')")
for name in libc.so.6 libm.so.6 libdl.so.2 libpthread.so.0 librt.so.1 libresolv.so.2 libgcc_s.so.1; do
    cp -L "$from/$name" "$root/usr/lib/$triple/"
done
echo 'root:x:0:0:root:/root:/bin/sh' >"$root/etc/passwd"
echo 'root:x:0:' >"$root/etc/group"
tar -C "$root" --owner=0 --group=0 --numeric-owner -cf "$folder/root.tar" .
rm -rf "$root"
# What it was made of, so that a report can name it.
git rev-parse HEAD >"$folder/commit" 2>/dev/null || echo unknown >"$folder/commit"

[ "$folder" != "$target" ] || exit 0
command -v xz >/dev/null || fail "there is no xz: apt-get install xz-utils"
mkdir -p "$(dirname "$target")"
(cd "$folder" && tar --owner=0 --group=0 --numeric-owner -cf - --exclude=./busybox --exclude=./rest.tar.xz . | xz -9 --check=crc32 >rest.tar.xz)
tar -C "$folder" --owner=0 --group=0 --numeric-owner -cf "$target.new" busybox rest.tar.xz
mv "$target.new" "$target"
# With the working tree it has to fit into what such a machine takes.
size=$(stat -c %s "$target")
echo "$target: $((size >> 20)) MiB"
[ "$size" -le $((48 << 20)) ] || fail "$target has more than 48 MiB: is BUILD a debug build?"
