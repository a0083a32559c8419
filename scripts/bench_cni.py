"""What wiring a container costs: our CNI plugin and Debian's, each run as any CNI host runs them."""
import json, os, time
from bench_measure import BIN, WORK, pairs, run

BRIDGE = "mtcni0"
POOL = {"subnet": "10.249.0.0/16", "gateway": "10.249.0.1"}
OURS = {"type": "martlet-overlay", "mode": "shared", "bridge": BRIDGE, "hairpin": True, "addresses": [POOL],
        "defaultRoute": True, "dataDir": f"{WORK}/cni-ours"}
THEIRS = {"type": "bridge", "bridge": BRIDGE, "isGateway": True, "hairpinMode": True,
          "ipam": {"type": "host-local", "dataDir": f"{WORK}/cni-theirs", "ranges": [[POOL]], "routes": [{"dst": "0.0.0.0/0"}]}}


def call(verb, program, configuration, previous=None):
    """Milliseconds of one call, and its result."""
    configuration = {"cniVersion": "1.0.0", "name": "bench", **configuration}
    if previous:
        configuration["prevResult"] = previous
    environment = {"CNI_COMMAND": verb, "CNI_CONTAINERID": "bench", "CNI_NETNS": f"{WORK}/netns", "CNI_IFNAME": "eth0",
                   "CNI_PATH": "/usr/lib/cni", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    # Started without the fork of a large process, which would be half of what is measured.
    given, answer = os.memfd_create("in"), os.memfd_create("out")
    os.write(given, json.dumps(configuration).encode())
    os.lseek(given, 0, os.SEEK_SET)
    start = time.monotonic()
    child = os.posix_spawn(program, [program], environment, file_actions=[(os.POSIX_SPAWN_DUP2, given, 0), (os.POSIX_SPAWN_DUP2, answer, 1)])
    _, status = os.waitpid(child, 0)
    elapsed = time.monotonic() - start
    output = os.pread(answer, 1 << 20, 0).decode()
    os.close(given)
    os.close(answer)
    if status != 0:
        raise RuntimeError(f"{program} {verb}: {output[-500:]}")
    return elapsed * 1000, json.loads(output) if output else None


def plugins():
    run("ip", "link", "add", BRIDGE, "type", "bridge")
    run("ip", "addr", "add", "10.249.0.1/16", "dev", BRIDGE)
    run("ip", "link", "set", BRIDGE, "up")
    open(f"{WORK}/netns", "w").close()
    run("unshare", f"--net={WORK}/netns", "true")
    places = {"ours": (f"{BIN}/martlet-overlay", OURS), "theirs": ("/usr/lib/cni/bridge", THEIRS)}

    def once(place, verb):
        def measure():
            added, result = call("ADD", *places[place])
            deleted, _ = call("DEL", *places[place], result)
            return added if verb == "ADD" else deleted
        return measure

    try:
        pairs("CNI ADD", once("ours", "ADD"), once("theirs", "ADD"), "bridge and host-local", budget="≤ 0.1",
              why="a start of the program, one netlink datagram in each of the two namespaces")
        pairs("CNI DEL", once("ours", "DEL"), once("theirs", "DEL"), "bridge and host-local",
              why="the kernel's wait in RTM_DELLINK, which pods that end do not have: their device goes with the namespace")
    finally:
        run("umount", f"{WORK}/netns")
        run("ip", "link", "del", BRIDGE)
