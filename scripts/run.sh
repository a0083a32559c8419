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
if ! running; then
    for port in 8080 8081; do
        user=$(ss -Hltnp "sport = :$port" 2>/dev/null | grep -oE 'users:\(\("[^"]+"' | head -n 1 | cut -d'"' -f2 || true)
        [ -z "$(ss -Hltn "sport = :$port")" ] || fail "port $port is taken${user:+ by $user}; the web service of this example wants 8080 and 8081: end that program first"
    done
fi

step() { printf '\n== %s\n' "$*"; }
step "Building"
scripts/release.sh

step "Making an image from busybox"
scripts/busybox.sh "$assets/busybox"
scripts/rootfs.sh "$assets/busybox" "$assets/rootfs.tar"

step "Starting the cluster"
running || "$martlet" up --detach
"$martlet" image import --name busybox:latest "$assets/rootfs.tar"

step "Running a web service with two instances"
if ! "$martlet" service inspect web >/dev/null 2>&1; then
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
