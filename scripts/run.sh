#!/bin/bash
# make run: set up, build, start a one-node cluster with a web service of two instances, fetch its pages, say what to do next.
set -euo pipefail
cd "$(dirname "$0")/.."
fail() { echo "martlet: $*" >&2; exit 1; }

if [ -x .build/release/martlet ]; then
    echo "Martlet: building what changed and starting a one-node cluster. This takes about half a minute."
else
    echo "Martlet: a first run builds everything: about ten minutes on two cores, half a minute from then on."
fi
scripts/setup.sh run
martlet=$PWD/.build/release/martlet
assets=.build/assets

running() { [ -x "$martlet" ] && "$martlet" version --format json >/dev/null 2>&1; }
serving() { "$martlet" service inspect web >/dev/null 2>&1; }

# What `martlet up` would refuse after the build is refused before it. The places are its defaults.
check_network() {
    local bridge=/sys/class/net/martlet0 alias other
    if [ -e "$bridge" ]; then
        alias=$(cat "$bridge/ifalias")
        [ "$alias" = "martlet /var/lib/martlet" ] ||
            fail "a network device martlet0 is there already${alias:+, marked '$alias',} and the cluster's bridge needs that name: remove it (ip link delete martlet0), or start a cluster by hand with 'martlet up --bridge'"
    fi
    # Routes within the subnet, and those that it lies in.
    other=$({ ip -4 -o route show root 10.213.0.0/16; ip -4 -o route show match 10.213.0.0/16; } |
        grep -vE '^default | dev martlet0 ' | head -n 1 | sed 's/ *$//' || true)
    [ -z "$other" ] ||
        fail "the pods' subnet 10.213.0.0/16 overlaps the route '$other': remove that, or start a cluster by hand with 'martlet up --subnet'"
}
check_disk() {
    local place=/var/lib/martlet free
    while [ ! -d "$place" ]; do place=$(dirname "$place"); done
    free=$(df -Pk "$place" | awk 'NR == 2 { print $4 }')
    [ "$free" -ge 200000 ] || fail "too little disk: $((free / 1024)) MB free in $place, 200 MB needed for /var/lib/martlet"
}
check_ports() {
    local port user
    for port in 8080 8081; do
        [ -n "$(ss -Hltn "sport = :$port")" ] || continue
        user=$(ss -Hltnp "sport = :$port" | grep -oE 'users:\(\("[^"]+"' | head -n 1 | cut -d'"' -f2 || true)
        fail "port $port is taken${user:+ by $user}; the web service of this example wants 8080 and 8081: end that program first"
    done
}
if running; then
    serving || check_ports
else
    check_network
    check_disk
    check_ports
fi

step() { printf '\n== %s\n' "$*"; }
step "Making a root file system from busybox"
scripts/busybox.sh "$assets/busybox"
scripts/rootfs.sh "$assets/busybox" "$assets/rootfs.tar"

step "Building"
scripts/release.sh

step "Starting the cluster"
running || "$martlet" up --detach
"$martlet" image import --name busybox:latest "$assets/rootfs.tar"

step "Running a web service with two instances"
if serving; then
    "$martlet" service scale web=2
else
    "$martlet" service create --name web --replicas 2 -p 8080-8081:80 busybox:latest \
        sh -c 'echo "Hello from $(hostname), which the martlet brought." >/www/index.html; exec httpd -f -p 80 -h /www'
fi
"$martlet" service wait web --timeout 60

step "Fetching a page from each"
mapfile -t addresses < <("$martlet" ps --service web --format '{{.Address}}')
[ ${#addresses[@]} = 2 ] || fail "expected two instances, found ${#addresses[@]}: see '$martlet ps'"
for url in "${addresses[@]/#/http://}" http://127.0.0.1:8080 http://127.0.0.1:8081; do
    page=$(curl -fsS --retry 20 --retry-delay 0 --retry-all-errors --retry-max-time 20 --max-time 5 "$url/") || fail "no page from $url: see '$martlet logs web.1'"
    printf '%-28s %s\n' "$url" "$page"
done

step "What runs"
"$martlet" node ls
echo
"$martlet" ps

cat <<TEXT

The cluster is up. Try:
  export PATH=$PWD/.build/release:\$PATH
  martlet run --rm -it busybox sh            a shell in a container
  martlet service scale web=2                or =1; more needs a wider port range
  martlet logs web.1 ; martlet stats         what they say, what they use
  martlet exec web.2 ps                      look inside
  martlet --help                             the rest
  make stop                                  ends it and cleans up
TEXT
