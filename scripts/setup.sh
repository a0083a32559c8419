#!/bin/bash
# Usage: setup.sh build|run|test|bench|fuzz: checks what cannot be installed, then installs the Debian packages that are missing.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() { echo "martlet: $*" >&2; exit 1; }

[ "$(id -u)" = 0 ] || fail "this needs root (namespaces, cgroups, mounts): run it as root or with sudo"
[ "$(uname -m)" = x86_64 ] || [ "$(uname -m)" = aarch64 ] || fail "no support for $(uname -m) machines"

command -v swift >/dev/null ||
    fail "no Swift on the PATH: install Swift 6.3 or later from https://www.swift.org/install/linux/${SUDO_USER:+, or keep your PATH with: sudo env PATH=\"\$PATH\" make}"
version=$(swift --version 2>/dev/null | grep -oE 'Swift version [0-9]+\.[0-9]+' | head -n 1 | grep -oE '[0-9]+\.[0-9]+' || true)
[ -n "$version" ] || fail "'swift --version' does not name a version: is the toolchain whole?"
major=${version%%.*} minor=${version##*.}
[ "$major" -gt 6 ] || { [ "$major" = 6 ] && [ "$minor" -ge 3 ]; } ||
    fail "Swift $version is too old: Martlet needs 6.3 or later (https://www.swift.org/install/linux/)"

# A first build writes about 2 GB for each configuration.
need=4000000
[ ! -d .build/checkouts ] || need=1000000
free=$(df -Pk . | awk 'NR == 2 { print $4 }')
[ "$free" -ge "$need" ] || fail "too little disk: $((free / 1024)) MB free in $PWD, $((need / 1024)) MB needed"

packages=(ca-certificates pkg-config libseccomp-dev libcap-dev libarchive-dev libyaml-dev libsqlite3-dev libnl-3-dev libnl-route-3-dev)
command -v git >/dev/null || packages+=(git)
case "${1:-build}" in
    build | fuzz) ;;
    run) packages+=(iptables iproute2 curl) ;;
    test)
        packages+=(containernetworking-plugins iptables nftables iproute2 curl runc crun skopeo docker.io containerd podman conmon netavark catatonit docker-registry openssl python3 python3-pip jq attr)
        # The machine tier has an x86_64 machine only.
        [ "$(uname -m)" != x86_64 ] || packages+=(qemu-system-x86 e2fsprogs apparmor systemd binutils)
        ;;
    bench) packages+=(containernetworking-plugins iptables iproute2 curl runc crun docker.io containerd conmon skopeo docker-registry python3 jq time iperf3) ;;
    *) fail "setup.sh: unknown purpose '$1'" ;;
esac
missing=()
for package in "${packages[@]}"; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
    echo "Installing Debian packages: ${missing[*]}"
    mkdir -p .build
    log=.build/apt.log
    # A package that starts a service at installation must not do so here.
    if [ ! -e /usr/sbin/policy-rc.d ]; then
        trap 'rm -f /usr/sbin/policy-rc.d' EXIT
        printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
        chmod +x /usr/sbin/policy-rc.d
    fi
    { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}"; } \
        >"$log" 2>&1 </dev/null ||
        { tail -n 5 "$log" >&2; fail "apt-get could not install ${missing[*]}: is the network there? The log is $log"; }
fi
