"""Compares Martlet's programs with their peers: interleaved pairs, median ratio, 95 % interval by bootstrap."""
import contextlib, glob, json, os, random, re, shutil, signal, statistics, subprocess, sys, tempfile, time

ROOT = os.getcwd()
BIN = f"{ROOT}/.build/release"
MARTLET = f"{BIN}/martlet"
BUSYBOX = f"{ROOT}/.build/assets/busybox"
ROOTFS = f"{ROOT}/.build/assets/rootfs.tar"
WORK = tempfile.mkdtemp(prefix="martlet-bench-")
HOST = f"unix:{WORK}/run/martlet.sock"
PLACE = ["--data-dir", f"{WORK}/data", "--run-dir", f"{WORK}/run"]
NODE = ["--bridge", "mbench0", "--subnet", "10.221.0.0/16", "--cgroup-parent", "martlet-bench"]
ENV = {**os.environ, "MARTLET_HOST": HOST, "DOCKER_HOST": f"unix://{WORK}/docker.sock"}


def run(*command, check=True, **options):
    return subprocess.run(command, check=check, env=ENV, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def timed(command):
    start = time.monotonic()
    result = subprocess.run(command, env=ENV, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
    elapsed = time.monotonic() - start
    if result.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {result.stderr.decode()[-500:]}")
    return elapsed * 1000


def interval(values, rounds=2000):
    medians = sorted(statistics.median(random.choices(values, k=len(values))) for _ in range(rounds))
    return medians[int(rounds * 0.025)], medians[int(rounds * 0.975)]


def pairs(title, ours, theirs, peer, count=30, budget=None, why=""):
    """Runs A B A B …; `ours` and `theirs` are commands or functions that return milliseconds."""
    measure = lambda what: what() if callable(what) else timed(what)
    measure(ours), measure(theirs)
    a, b = [], []
    for _ in range(count):
        a.append(measure(ours))
        b.append(measure(theirs))
    ratios = [x / y for x, y in zip(a, b)]
    low, high = interval(ratios)
    limit = f", budget {budget}" if budget else ""
    print(f"{title}: {statistics.median(a):.1f} ms against {peer} {statistics.median(b):.1f} ms: "
          f"ratio {statistics.median(ratios):.2f} [{low:.2f}, {high:.2f}] over {count} pairs{limit}")
    if why:
        print(f"    {why}")
    sys.stdout.flush()


def memory(pid):
    """Private and, of it, anonymous memory of a process in KiB."""
    fields = {line.split(":")[0]: int(line.split()[1]) for line in list(open(f"/proc/{pid}/smaps_rollup"))[1:]}
    return fields["Private_Clean"] + fields["Private_Dirty"], fields["Anonymous"]


def resident(pid):
    """Resident memory of a process in KiB."""
    return next(int(line.split()[1]) for line in open(f"/proc/{pid}/status") if line.startswith("VmRSS"))


def bundle():
    folder = f"{WORK}/bundle"
    os.makedirs(f"{folder}/rootfs")
    run("tar", "-C", f"{folder}/rootfs", "-xf", ROOTFS)
    run("runc", "spec", "-b", folder)
    spec = json.load(open(f"{folder}/config.json"))
    spec["process"]["args"] = ["/bin/true"]
    spec["process"]["terminal"] = False
    spec["process"].pop("rlimits", None)
    json.dump(spec, open(f"{folder}/config.json", "w"))
    return folder


def runtimes():
    folder = bundle()
    number = iter(range(10 ** 9))
    hidden = "umount /sys/fs/cgroup/unified 2>/dev/null; " if os.path.ismount("/sys/fs/cgroup/unified") else ""

    def once(runtime, state):
        return lambda: timed([runtime, "--root", f"{WORK}/{state}", "run", "-b", folder, f"b{next(number)}"])

    def crun():
        # crun refuses hybrid hosts: it runs where the cgroup2 mount is hidden, entered beforehand.
        return timed(["nsenter", f"--mount=/proc/{shell.pid}/ns/mnt", "crun", "--root", f"{WORK}/crun", "run", "-b", folder, f"b{next(number)}"])

    shell = subprocess.Popen(["unshare", "-m", "--propagation", "private", "sh", "-c", f"{hidden} echo ready; exec sleep 100000"], stdout=subprocess.PIPE)
    shell.stdout.readline()
    enter = ["nsenter", f"--mount=/proc/{shell.pid}/ns/mnt"]
    ours_beside_crun = lambda: timed(enter + [f"{BIN}/martlet-runtime", "--root", f"{WORK}/rt2", "run", "-b", folder, f"b{next(number)}"])
    pairs("runtime run", once(f"{BIN}/martlet-runtime", "rt"), once("runc", "runc"), "runc", why="four fifths of ours is the kernel: page faults of exec and exit, path lookups, mounts, cgroup files")
    pairs("runtime run", ours_beside_crun, crun, "crun (both entered by nsenter)", budget="≤ 0.5",
          why="both carry a run of nsenter; ours is dominated as above")
    shell.kill()
    shell.wait()


@contextlib.contextmanager
def cluster():
    run(MARTLET, "up", "--detach", *PLACE, *NODE)
    try:
        run(MARTLET, "image", "import", "--name", "busybox", ROOTFS)
        yield
    finally:
        run(MARTLET, "down", "--all", *PLACE)


@contextlib.contextmanager
def dockerd():
    # A daemon of our own in these namespaces; it ends by its process id.
    log = open(f"{WORK}/dockerd.log", "w")
    # runc of a hybrid host works; containerd is started by dockerd itself.
    daemon = subprocess.Popen(["dockerd", "--data-root", f"{WORK}/docker", "--exec-root", f"{WORK}/docker-run", "-H", ENV["DOCKER_HOST"],
                               "-p", f"{WORK}/docker.pid", "--storage-driver", "overlay2", "--bip", "10.222.0.1/16",
                               "--cgroup-parent", "/martlet-bench-docker"], stdout=log, stderr=log, env=ENV)
    try:
        for _ in range(300):
            if run("docker", "version", check=False).returncode == 0:
                break
            if daemon.poll() is not None:
                raise RuntimeError(open(log.name).read()[-800:])
            time.sleep(0.1)
        run("docker", "import", ROOTFS, "busybox:latest")
        yield daemon
    finally:
        run("sh", "-c", "docker ps -aq | xargs -r docker rm -f", check=False)
        daemon.send_signal(signal.SIGTERM)
        daemon.wait()
        # docker leaves the parent of its containers' cgroups.
        for folder in glob.glob("/sys/fs/cgroup/martlet-bench-docker") + glob.glob("/sys/fs/cgroup/*/martlet-bench-docker"):
            os.rmdir(folder)


def engines():
    run(MARTLET, "run", "-d", "--name", "host", "busybox", "sleep", "100000")
    run("docker", "run", "-d", "--name", "host", "busybox", "sleep", "100000")
    time.sleep(1)
    if "scale" in sys.argv[1:]:
        return scale()
    pairs("run --rm, bridged", [MARTLET, "run", "--rm", "busybox", "true"], ["docker", "run", "--rm", "busybox", "true"], "dockerd", budget="≤ 0.2 (through the Docker API, later)",
          why="half of ours is Debian's CNI plugins, bridge and host-local, then the runtime and the shim's start")
    pairs("exec", [MARTLET, "exec", "host", "true"], ["docker", "exec", "host", "true"], "dockerd", budget="≤ 0.2 (through the Docker API, later)",
          why="ours is dominated by two process starts, the CLI and the runtime, and four hops between them")
    shims()
    scale()


def shims():
    """Two of each kind run idle, so that the text of a program counts as shared, as it is on a node."""
    folder = f"{WORK}/bundle"
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
        pairs("service scaled from 1 to 50", ours, theirs, "swarm mode", count=5, budget="≤ 0.1", why="ours is dominated by forty-nine runs of the CNI plugins on two cores")
    else:
        print(f"swarm mode cannot run here ({made.stderr.strip()[:200]}); ours alone: {ours():.0f} ms")
    print(f"RSS of master and agent with 50 containers: {statistics.median(measured) / 1024:.1f} MiB"
          + (f"; dockerd and containerd with as many: {statistics.median(docker) / 1024:.1f} MiB" if docker else ""))
    run(MARTLET, "service", "rm", "--force", "many", check=False)


def main():
    print(f"{os.cpu_count()} cores, Linux {os.uname().release}")
    try:
        if "engines" in sys.argv[1:]:
            bundle()
        else:
            runtimes()
        with cluster():
            try:
                with dockerd():
                    engines()
            except RuntimeError as error:
                print(f"dockerd did not start, so its lines are left out: {str(error)[-300:]}")
    finally:
        shutil.rmtree(WORK, ignore_errors=True)


main()
