#!/bin/bash
# Usage: plugins.sh PROGRAMS MODE
# Two containers on a CNI network of podman's whose plugins are those of PROGRAMS, in a room of its own (room.sh): they reach
# each other and a published port, and leave nothing behind. MODE: `shared` or `routed`, martlet-overlay's.
set -euo pipefail
programs=$1 mode=$2
W=$PWD

case $mode in
    shared)
        ip link add pods0 type bridge
        ip addr add 10.98.0.1/24 dev pods0
        ip link set pods0 up
        way='"bridge": "pods0", "hairpin": true'
        ;;
    routed)
        # Somebody has to have the gateway's address, and forward.
        ip addr add 10.98.0.1/32 dev lo
        way='"group": 7, "mtu": 1400'
        ;;
esac
echo 1 >/proc/sys/net/ipv4/ip_forward
mkdir -p cni plugins
for name in martlet-overlay portmap bandwidth; do ln -sf "$programs/$name" plugins/; done
cat >cni/pods.conflist <<X
{ "cniVersion": "1.0.0", "name": "pods", "plugins": [
  { "type": "martlet-overlay", "mode": "$mode", $way, "addresses": [{ "subnet": "10.98.0.0/24", "gateway": "10.98.0.1" }],
    "defaultRoute": true, "dataDir": "$W/leases", "capabilities": { "ips": true, "mac": true } },
  { "type": "portmap", "capabilities": { "portMappings": true }, "snat": true },
  { "type": "bandwidth", "ingressRate": 800000000, "ingressBurst": 8000000, "egressRate": 800000000, "egressBurst": 8000000 } ] }
X
sed -e 's/^network_backend = .*/network_backend = "cni"/' -e "s|^network_config_dir = .*|network_config_dir = \"$W/cni\"\ncni_plugin_dirs = [\"$W/plugins\"]|" containers.conf >cni.conf
export CONTAINERS_CONF=$W/cni.conf
# Which backend it was is on record where its files are.
rm -rf graph run libpod volumes
podman import -c 'CMD ["sh"]' -c 'ENV PATH=/usr/sbin:/usr/bin:/sbin:/bin' "$ROOTFS" box >/dev/null 2>&1

before=$(ip -o link | wc -l)
podman run -d --name one $P --network pods -p 8080:80 box sh -c 'echo page >/index.html; exec httpd -f -p 80 -h /' >/dev/null
podman run -d --name two $P --network pods box sleep 1000 >/dev/null
one=$(podman inspect -f '{{.NetworkSettings.Networks.pods.IPAddress}}' one)
page() { curl -s --max-time 5 "http://$1/index.html"; }
# From a container's network with the host's program.
within() { nsenter -t "$(podman inspect -f '{{.State.Pid}}' "$1")" -n curl -s --max-time 5 "http://$2/index.html"; }
for _ in {1..50}; do page "$one" && break; sleep 0.1; done
within two "$one"
within two 10.98.0.1:8080
within one 10.98.0.1:8080
page 127.0.0.1:8080
ip -o link show type ifb | wc -l
podman exec two ip -o -4 addr show eth0 | grep -o 'inet [0-9./]*'
podman exec two ip -o link show eth0 | grep -o 'mtu [0-9]*'

podman rm -f -t 0 -a >/dev/null
for _ in {1..50}; do [ "$(ip -o link | wc -l)" = "$before" ] && break; sleep 0.1; done
echo "left: $(($(ip -o link | wc -l) - before)) devices, $(nft list ruleset | wc -l) rules, $(find leases -name '10.*' | wc -l) leases," \
    "$(ip route show proto 213 | wc -l) routes"
