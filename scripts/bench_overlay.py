"""Overlay networks between two nodes, against the same VXLAN made by hand with ip."""
import contextlib, json, os, subprocess, time
from bench_cluster import joined
from bench_daemons import machines, master
from bench_measure import ENV, MARTLET, ROOTFS, WORK, pairs, run, until

# An echo server and a client that asks it one question after another: microseconds of one.
ECHO = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(("", 9)); print("ready", flush=True)
while True:
    data, who = s.recvfrom(64); s.sendto(data, who)
"""
ASK = """
import socket, sys, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.connect((sys.argv[1], 9)); s.settimeout(2)
start = time.monotonic()
for _ in range(5000):
    s.send(b"x" * 32); s.recv(64)
print((time.monotonic() - start) / 5000 * 1e6)
"""


def by_hand(node, peer, own, other, number):
    """A pod's namespace on a node, with a route to the other's by a VXLAN device; returns the namespace's path."""
    path = f"{WORK}/hand{number}"
    open(path, "w").close()
    mac = lambda n: f"02:00:00:00:00:0{n}"
    script = f"""set -e
        unshare --net={path} true
        ip link add hand type vxlan id 77 dstport 4790 nolearning local {node.address}
        ip link set hand address {mac(number)} mtu 1450 up
        ip link add hv type veth peer name eth0 netns {path}
        ip link set hv mtu 1450 up
        nsenter --net={path} sh -ec 'ip link set lo up; ip link set eth0 mtu 1450 up; ip addr add {own}/32 dev eth0
            ip route add 10.250.0.1 dev eth0; ip route add default via 10.250.0.1'
        ip addr add 10.250.0.1/32 dev hand
        ip route add {own}/32 dev hv
        ip route add {other}/32 via {peer.address} dev hand onlink
        ip neigh add {peer.address} lladdr {mac(3 - number)} dev hand nud permanent
        bridge fdb add {mac(3 - number)} dev hand dst {peer.address} self permanent"""
    # The file is to be a mount that this script sees too.
    run(*node.enter, "sh", "-c", script)
    return path


@contextlib.contextmanager
def served(enter, namespace):
    """iperf3 and the echo in a namespace of a node, for as long as it takes."""
    inside = [*enter, "nsenter", f"--net={namespace}"]
    programs = [subprocess.Popen([*inside, "iperf3", "-s"], env=ENV, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL),
                subprocess.Popen([*inside, "python3", "-c", ECHO], env=ENV, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)]
    try:
        programs[1].stdout.readline()
        time.sleep(0.3)
        yield
    finally:
        for program in programs:
            program.kill()
            program.wait()


def overlay():
    with machines(2) as (first, second), master():
        joined([first, second])
        run(MARTLET, "image", "import", "--node", first.name, "--name", "busybox", ROOTFS)
        run(MARTLET, "network", "create", "-d", "overlay", "bench")
        places = []
        for node in (first, second):
            run(MARTLET, "run", "-d", "--name", f"pod-{node.name}", "--network", "bench", "--constraint", f"node.name=={node.name}", "busybox", "sleep", "100000")
            view = lambda: json.loads(run(MARTLET, "inspect", f"pod-{node.name}").stdout)[0]
            until("it runs", lambda: view()["status"]["phase"] == "running")
            places.append((f"{WORK}/{node.name}/run/netns/{view()['task']}", view()["status"]["endpoints"][0]["address"].split("/")[0]))
        hands = [by_hand(first, second, "10.250.0.2", "10.250.0.3", 1), by_hand(second, first, "10.250.0.3", "10.250.0.2", 2)]
        size = 500_000_000

        def inside(namespace, *command):
            return run(*first.enter, "nsenter", f"--net={namespace}", *command).stdout

        def transfer(namespace, address, *options):
            def measure():
                answer = json.loads(inside(namespace, "iperf3", "-c", address, "-n", str(size), "-J", *options))
                return answer["end"]["sum_received"]["seconds"] * 1000
            return measure

        def echo(namespace, address):
            return lambda: float(inside(namespace, "python3", "-c", ASK, address)) / 1000

        ours, theirs = (places[0][0], places[1][1]), (hands[0], "10.250.0.3")
        with served(second.enter, places[1][0]), served(second.enter, hands[1]):
            pairs("500 MB over an overlay, one TCP connection", transfer(*ours), transfer(*theirs), "the same VXLAN made with ip", size=size, budget="≤ 1.05",
                  why="ours has the rules that isolate networks and pods, by hand there are none")
            pairs("500 MB over an overlay, four TCP connections", transfer(*ours, "-P", "4"), transfer(*theirs, "-P", "4"), "the same VXLAN made with ip", size=size)
            pairs("a question and its answer by UDP", echo(*ours), echo(*theirs), "the same VXLAN made with ip")
        for path in hands:
            for node in (first, second):
                run(*node.enter, "umount", path, check=False)
        for node in (first, second):
            run(MARTLET, "rm", "-f", f"pod-{node.name}")
        run(MARTLET, "network", "rm", "bench")
