#!/bin/bash
# Usage: install.sh install|uninstall: puts the built programs and systemd's units in their places, or takes them away.
# PREFIX (/usr/local), DESTDIR, UNITDIR (the folder of the prefix that systemd looks into, else /etc/systemd/system) and BUILD,
# the folder of the built programs (.build/release), come from the environment. Each file is renamed into its place, so
# that programs which run keep theirs.
set -euo pipefail
cd "$(dirname "$0")/.."
fail() { echo "martlet: $*" >&2; exit 1; }
prefix=${PREFIX:-/usr/local} root=${DESTDIR:-} build=${BUILD:-.build/release}
[[ $prefix = /* && $prefix != / && $prefix != *[[:space:]]* ]] || fail "PREFIX '$prefix' must be an absolute path below / without blanks"
[[ -z $root || $root = /* ]] || fail "DESTDIR '$root' must be an absolute path"
prefix=${prefix%/} root=${root%/}
case $prefix in /usr | /usr/local) units=$prefix/lib/systemd/system ;; *) units=/etc/systemd/system ;; esac
units=${UNITDIR:-$units}
bin=$prefix/bin libexec=$prefix/libexec/martlet etc=/etc/martlet
# What was installed, a line each: `file PATH`, `config SHA256 PATH` or `folder PATH`.
list=$libexec/installed

# systemd is spoken to where it runs and it is its files that change.
managed() { [ -z "$root" ] && [ -d /run/systemd/system ] && command -v systemctl >/dev/null; }
checksum() { sha256sum <"$1" | cut -d' ' -f1; }
listed() { [ ! -e "$root$list" ] || sed -n "s#^$1 ##p" "$root$list"; }

folders=() staged=() entries=()
unstage() { for path in "${staged[@]}"; do rm -f "$root$path.new.$$"; done; }
folder() {
    [ -d "$root$1" ] || { folder "$(dirname "$1")"; mkdir -m 755 "$root$1"; folders+=("$1"); }
}
stage() { # mode, source, path
    folder "$(dirname "$3")"
    install -m "$1" "$2" "$root$3.new.$$"
    staged+=("$3")
}

install_all() {
    local name source path before=() active=()
    for name in martlet martlet-runtime martlet-shim martlet-nvml martlet-overlay portmap loopback bandwidth; do
        [ -x "$build/$name" ] || fail "there is no $build/$name: make release"
    done
    [ -n "$root" ] || [ "$(id -u)" = 0 ] || fail "installing into $prefix needs root: run it as root or with sudo"
    mapfile -t before < <(listed file)
    trap unstage EXIT
    [ -z "$root" ] || mkdir -p "$root"
    # The runtime is for other engines too, so both are on the PATH; the rest is found by these.
    for name in martlet martlet-runtime; do stage 755 "$build/$name" "$bin/$name"; done
    for name in martlet-shim martlet-nvml martlet-overlay portmap loopback bandwidth; do
        stage 755 "$build/$name" "$libexec/$name"
    done
    source=$(mktemp)
    for path in systemd/*.slice systemd/*.service; do
        sed "s#@BIN@#$bin#g" "$path" >"$source"
        stage 644 "$source" "$units/$(basename "$path")"
    done
    rm -f "$source"
    entries=("${staged[@]/#/file }")
    for path in systemd/*.env; do
        name=$etc/$(basename "$path")
        # What somebody changed stays.
        if [ ! -e "$root$name" ] || grep -qxF "$(checksum "$root$name") $name" <<<"$(listed config)"; then
            # Tokens may be written into it.
            stage 600 "$path" "$name"
            entries+=("config $(checksum "$path") $name")
        else
            echo "kept      $name, which is not as it was installed"
            entries+=("config - $name")
        fi
    done
    # Folders within others come first, as they are removed.
    mapfile -t folders < <({ listed folder; printf '%s\n' "${folders[@]}"; } | sed '/^$/d' | sort -ru)
    printf '%s\n' "${entries[@]}" "${folders[@]/#/folder }" >"$root$list.new.$$"
    staged+=("$list")
    # Durable before they have their names.
    for path in "${staged[@]}"; do sync "$root$path.new.$$"; done
    for path in "${staged[@]}"; do
        mv -fT "$root$path.new.$$" "$root$path"
        echo "installed $path"
    done
    trap - EXIT
    for path in "${before[@]}"; do
        [[ " ${staged[*]} " != *" $path "* ]] || continue
        rm -f "$root$path"
        echo "removed   $path, which this version has no more"
    done
    if managed; then
        systemctl daemon-reload
        for name in martlet-master martlet-agent; do ! systemctl is-active --quiet "$name" || active+=("$name"); done
    fi
    echo
    if [ ${#active[@]} -gt 0 ]; then
        echo "What runs is still the version before. To change over, which stops no pod:"
        echo "  systemctl restart ${active[*]}"
        return
    fi
    cat <<TEXT
Next, on one machine:
  systemctl enable --now martlet-master martlet-agent
  martlet doctor; martlet node ls
On a further machine of a cluster: write into $etc/agent.env what docs/install.md says of a master and a token, then
  systemctl enable --now martlet-agent
docs/install.md has the rest.
TEXT
}

uninstall_all() {
    local path sum name pods=0 kept=()
    [ -n "$root" ] || [ "$(id -u)" = 0 ] || fail "uninstalling from $prefix needs root: run it as root or with sudo"
    [ -e "$root$list" ] || fail "nothing is installed under $root$prefix: there is no $root$list"
    if [ -z "$root" ]; then
        for path in /proc/[0-9]*/exe; do
            # Whatever installation it is of: the units are one and the same, and links may stand before its name.
            name=$(readlink "$path" 2>/dev/null) || continue
            [[ ${name% (deleted)} != */martlet-shim ]] || pods=$((pods + 1))
        done
        [ "$pods" = 0 ] ||
            fail "pods are running, $pods of them, and would lose their logs and exit codes: end them first ('systemctl stop martlet-pods', or 'martlet down' without systemd)"
    fi
    if managed; then
        # Those that are there: an uninstallation that was interrupted can be finished.
        for name in martlet-agent martlet-master martlet-pods martlet.slice; do
            systemctl cat "$name" >/dev/null 2>&1 || continue
            [[ $name != martlet-[am]* ]] || systemctl disable --quiet "$name"
            systemctl stop "$name"
        done
    fi
    while read -r path; do
        rm -f "$root$path"
        echo "removed   $path"
    done < <(listed file)
    while read -r sum path; do
        [ -e "$root$path" ] || continue
        if [ "$(checksum "$root$path")" = "$sum" ]; then
            rm -f "$root$path"
            echo "removed   $path"
        else
            kept+=("$path")
        fi
    done < <(listed config)
    mapfile -t folders < <(listed folder)
    rm -f "$root$list"
    for path in "${folders[@]}"; do rmdir "$root$path" 2>/dev/null || true; done
    if managed; then
        systemctl daemon-reload
        systemctl reset-failed 'martlet-*' 2>/dev/null || true
    fi
    for path in "${kept[@]}"; do echo "kept      $path, which was changed"; done
    path=$root/var/lib/martlet
    [ ! -e "$path" ] || echo "kept      $path: the cluster's state, images and volumes, from which a new installation goes on"
}

case ${1:-} in
    install) install_all ;;
    uninstall) uninstall_all ;;
    *) fail "install.sh: say install or uninstall" ;;
esac
