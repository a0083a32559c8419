"""Compares Martlet's programs with their peers: interleaved pairs, median ratio, 95 % interval by bootstrap."""
import glob, json, os, shutil, signal, statistics, subprocess, sys, time
import bench_cluster
import bench_cni
import bench_docker
import bench_list
import bench_overlay
import bench_runtime
from bench_daemons import dockerd, one_node
from bench_measure import ENV, MARTLET, ROOTFS, WORK, memory, pairs, resident, run


def engines():
    run(MARTLET, "run", "-d", "--name", "host", "busybox", "sleep", "100000")
    run("docker", "run", "-d", "--name", "host", "busybox", "sleep", "100000")
    time.sleep(1)
    if "scale" in sys.argv[1:]:
        return scale()
    pairs("run --rm, bridged", [MARTLET, "run", "--rm", "busybox", "true"], ["docker", "run", "--rm", "busybox", "true"], "dockerd",
          why="ours is the starts of the CLI, the runtime and the shim, and the kernel's work for namespaces and mounts")
    pairs("exec", [MARTLET, "exec", "host", "true"], ["docker", "exec", "host", "true"], "dockerd",
          why="ours is dominated by two process starts, the CLI and the runtime, and four hops between them")
    through_docker()
    bench_docker.requests()
    shims()
    scale()


def through_docker():
    """The same client asks both: ours through the Docker API."""
    ours = ["docker", "-H", f"unix://{WORK}/run/martlet.sock"]
    pairs("docker run --rm, bridged", ours + ["run", "--rm", "busybox", "true"], ["docker", "run", "--rm", "busybox", "true"], "dockerd", budget="≤ 0.2",
          why="both carry a start of the docker CLI")
    pairs("docker exec", ours + ["exec", "host", "true"], ["docker", "exec", "host", "true"], "dockerd", budget="≤ 0.2",
          why="both carry a start of the docker CLI")

    def ten(command):
        def measure():
            start = time.monotonic()
            clients = [subprocess.Popen(command, env=ENV, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) for _ in range(10)]
            for client in clients:
                _, said = client.communicate()
                if client.returncode != 0:
                    raise RuntimeError(f"{' '.join(command)}: {said.decode()[-500:]}")
            return (time.monotonic() - start) * 1000
        return measure

    pairs("ten docker run --rm at once", ten(ours + ["run", "--rm", "busybox", "true"]), ten(["docker", "run", "--rm", "busybox", "true"]), "dockerd", count=5)
    pairs("ten docker exec at once", ten(ours + ["exec", "host", "true"]), ten(["docker", "exec", "host", "true"]), "dockerd", count=5)


def shims():
    """Two of each kind run idle, so that the text of a program counts as shared, as it is on a node."""
    folder = bench_runtime.bundle()
    spec = json.load(open(f"{folder}/config.json"))
    spec["process"]["args"] = ["sleep", "1000"]
    spec["root"]["path"] = f"{folder}/rootfs"
    conmons = []
    for name in ["bench-conmon-1", "bench-conmon-2"]:
        place = f"{WORK}/{name}"
        os.makedirs(place)
        json.dump(spec, open(f"{place}/config.json", "w"))
        run("conmon", "-c", name, "-u", name, "-r", shutil.which("runc"), "-b", place, "-p", f"{place}/pid", "--full-attach",
            "-l", f"k8s-file:{place}/log", "--conmon-pidfile", f"{place}/conmon.pid", "--exit-dir", place)
        conmons.append(int(open(f"{place}/conmon.pid").read()))
    run(MARTLET, "run", "-d", "--name", "second", "busybox", "sleep", "100000")
    run("docker", "run", "-d", "--name", "second", "busybox", "sleep", "100000")
    time.sleep(2)
    ours = [int(open(path).read().split()[0]) for path in glob.glob(f"{WORK}/run/shims/*/shim.pid")]
    theirs = [int(p) for p in run("pgrep", "-f", f"containerd-shim.*{WORK}", check=False).stdout.split()]
    kinds = {"martlet-shim": ours, "conmon": conmons, "containerd-shim": theirs}
    for name, pids in kinds.items():
        figures = [memory(pid) for pid in pids if os.path.exists(f"/proc/{pid}/smaps_rollup")]
        if figures:
            private, anonymous = max(figures)
            print(f"private memory of an idle {name}: {private} KiB, of it {anonymous} KiB anonymous ({len(figures)} running)")
        else:
            print(f"private memory of an idle {name}: not measured, none runs")
    for name in ["bench-conmon-1", "bench-conmon-2"]:
        run("runc", "delete", "-f", name, check=False)


def scale():
    def wait_ours(n):
        while json.loads(run(MARTLET, "service", "inspect", "many").stdout)[0]["serving"] != n:
            time.sleep(0.02)

    run(MARTLET, "service", "create", "--name", "many", "--replicas", "1", "--stop-timeout", "0", "busybox", "sleep", "100000")
    wait_ours(1)
    run("docker", "swarm", "init", "--advertise-addr", "127.0.0.1", check=False)
    made = run("docker", "service", "create", "--detach", "--name", "many", "--stop-grace-period", "0s", "busybox", "sleep", "100000", check=False)

    def running():
        return run("docker", "service", "ls", "--format", "{{.Replicas}}", check=False).stdout.strip().split("/")[0]

    def ours():
        start = time.monotonic()
        run(MARTLET, "service", "scale", "many=50")
        wait_ours(50)
        took = (time.monotonic() - start) * 1000
        measured.append(resident(int(open(f"{WORK}/run/up.pid").read().split()[0])))
        run(MARTLET, "service", "scale", "many=1")
        wait_ours(1)
        return took

    def theirs():
        start = time.monotonic()
        run("docker", "service", "scale", "--detach", "many=50")
        while running() != "50":
            time.sleep(0.1)
        took = (time.monotonic() - start) * 1000
        pids = [int(p) for p in run("pgrep", "-f", f"{WORK}/docker", check=False).stdout.split()]
        docker.append(sum(resident(p) for p in pids if open(f"/proc/{p}/comm").read().strip() in ("dockerd", "containerd")))
        run("docker", "service", "scale", "--detach", "many=1")
        while len(run("docker", "ps", "-q", "--filter", "label=com.docker.swarm.service.name=many").stdout.split()) > 1:
            time.sleep(0.1)
        return took

    measured, docker = [], []
    if made.returncode == 0:
        pairs("service scaled from 1 to 50", ours, theirs, "swarm mode", count=5, budget="≤ 0.1", why="ours is forty-nine times what a run takes, on two cores")
    else:
        print(f"swarm mode cannot run here ({made.stderr.strip()[:200]}); ours alone: {ours():.0f} ms")
    print(f"RSS of master and agent with 50 containers: {statistics.median(measured) / 1024:.1f} MiB"
          + (f"; dockerd and containerd with as many: {statistics.median(docker) / 1024:.1f} MiB" if docker else ""))
    run(MARTLET, "service", "rm", "--force", "many", check=False)


def both():
    """Runs the comparison with dockerd, with both clusters idle beside it."""
    with one_node(), dockerd() as docker:
        docker("import", ROOTFS, "busybox:latest")
        engines()


def streams():
    """On a cluster of their own: the memory of what was there before would be theirs."""
    with one_node():
        run(MARTLET, "run", "-d", "--name", "host", "busybox", "sleep", "100000")
        bench_docker.streams()


PARTS = {"runtimes": bench_runtime.runtimes, "cni": bench_cni.plugins, "overlay": bench_overlay.overlay, "engines": both, "pull": bench_cluster.pull, "peer": bench_cluster.peer, "join": bench_cluster.join,
         "fanout": bench_cluster.fanout, "streams": streams, "list": bench_list.listed}
GROUPS = {"cluster": ["pull", "peer", "join", "fanout"], "scale": ["engines"]}


def interrupted(*_):
    # What was made is taken away without a second interruption.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def main():
    unknown = [word for word in sys.argv[1:] if word not in PARTS and word not in GROUPS]
    if unknown:
        sys.exit(f"bench.py: unknown part {unknown[0]}; there are {', '.join([*PARTS, *GROUPS])}")
    wanted = [part for word in sys.argv[1:] for part in GROUPS.get(word, [word])] or list(PARTS)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupted)
    print(f"{os.cpu_count()} cores, Linux {os.uname().release}", flush=True)
    failed = False
    try:
        for part in wanted:
            try:
                PARTS[part]()
            except RuntimeError as error:
                failed = True
                print(f"{part}: ended early: {error}", flush=True)
    except KeyboardInterrupt:
        sys.exit("bench.py: interrupted; everything was removed")
    sys.exit(1 if failed else 0)


main()
