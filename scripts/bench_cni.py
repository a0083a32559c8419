"""What wiring a container costs: our CNI plugin and Debian's, each run as any CNI host runs them."""
import json, os, time
from bench_measure import BIN, PAUSE, WORK, pairs, run

BRIDGE = "mtcni0"
POOL = {"subnet": "10.249.0.0/16", "gateway": "10.249.0.1"}
OURS = {"type": "martlet-overlay", "mode": "shared", "bridge": BRIDGE, "hairpin": True, "addresses": [POOL],
        "defaultRoute": True, "dataDir": f"{WORK}/cni-ours"}
THEIRS = {"type": "bridge", "bridge": BRIDGE, "isGateway": True, "hairpinMode": True,
          "ipam": {"type": "host-local", "dataDir": f"{WORK}/cni-theirs", "ranges": [[POOL]], "routes": [{"dst": "0.0.0.0/0"}]}}


ROUTED = {"type": "martlet-overlay", "mode": "routed", "addresses": [{"subnet": "10.248.0.0/16", "gateway": "10.248.0.1"}],
          "defaultRoute": True, "dataDir": f"{WORK}/cni-routed"}
PORTS = {"type": "portmap", "snat": True, "runtimeConfig": {"portMappings": [{"hostPort": 18080, "containerPort": 80, "protocol": "tcp"}]}}
REFERENCE = "/usr/lib/cni"
# The same in martlet-overlay's own configuration.
PUBLISHED = {name: PORTS[name] for name in ["snat", "runtimeConfig"]}
# What a pod gets: a device, a published port, and lo, which martlet-overlay switches on by itself.
CHAINS = {"shared": [(f"{BIN}/martlet-overlay", {**OURS, **PUBLISHED})],
          "routed": [(f"{BIN}/martlet-overlay", {**ROUTED, **PUBLISHED})],
          "theirs": [(f"{REFERENCE}/loopback", {"type": "loopback"}), (f"{REFERENCE}/bridge", THEIRS), (f"{REFERENCE}/portmap", PORTS)]}


def call(verb, program, configuration, previous=None, arguments=""):
    """Milliseconds of one call, and its result."""
    configuration = {"cniVersion": "1.0.0", "name": "bench", **configuration}
    if previous:
        configuration["prevResult"] = previous
    environment = {"CNI_COMMAND": verb, "CNI_CONTAINERID": "bench", "CNI_NETNS": f"{WORK}/netns", "CNI_IFNAME": "eth0",
                   "CNI_ARGS": arguments, "CNI_PATH": REFERENCE, "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
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


def chain(name, verb, arguments=""):
    """What one verb of a chain takes: all plugins in their order, at DEL in the other; `lo` is a network of its own."""
    def measure():
        # Each time a namespace of its own, as a pod has it.
        run("unshare", f"--net={WORK}/netns", "true")
        try:
            result, took = None, {"ADD": 0, "DEL": 0}
            for program, configuration in CHAINS[name]:
                time_taken, answer = call("ADD", program, configuration, result)
                took["ADD"] += time_taken
                result = None if configuration["type"] == "loopback" else answer
            # The kernel's work that nobody waits for is not to be in the next figure.
            time.sleep(PAUSE)
            for program, configuration in reversed(CHAINS[name]):
                took["DEL"] += call("DEL", program, configuration, None if configuration["type"] == "loopback" else result, arguments)[0]
            return took[verb]
        finally:
            run("umount", f"{WORK}/netns")
    return measure


def chains():
    for mode in ["shared", "routed"]:
        pairs(f"CNI chain with a port, {mode}: ADD", chain(mode, "ADD"), chain("theirs", "ADD"), "loopback, bridge, host-local and portmap", budget="≤ 0.1")
        pairs(f"CNI chain with a port, {mode}: DEL of a pod that ends", chain(mode, "DEL", "IgnoreUnknown=1;MARTLET_END=1"),
              chain("theirs", "DEL", "IgnoreUnknown=1;MARTLET_END=1"), "loopback, bridge, host-local and portmap", budget="≤ 0.1",
              why="of portmap nobody waits until the kernel has freed what was in nf_tables")


def plugins():
    run("ip", "link", "add", BRIDGE, "type", "bridge")
    run("ip", "addr", "add", "10.249.0.1/16", "dev", BRIDGE)
    run("ip", "link", "set", BRIDGE, "up")
    open(f"{WORK}/netns", "w").close()
    try:
        chains()
        run("unshare", f"--net={WORK}/netns", "true")
        alone()
    finally:
        run("umount", f"{WORK}/netns", check=False)
        run("ip", "link", "del", BRIDGE)


def alone():
    places = {"ours": (f"{BIN}/martlet-overlay", OURS), "theirs": ("/usr/lib/cni/bridge", THEIRS)}

    def once(place, verb):
        def measure():
            added, result = call("ADD", *places[place])
            deleted, _ = call("DEL", *places[place], result)
            return added if verb == "ADD" else deleted
        return measure

    pairs("CNI ADD", once("ours", "ADD"), once("theirs", "ADD"), "bridge and host-local",
          why="a start of the program, and five datagrams of netlink")
    pairs("CNI DEL", once("ours", "DEL"), once("theirs", "DEL"), "bridge and host-local",
          why="the kernel's wait in RTM_DELLINK, which pods that end do not have: their device goes with the namespace")
