"""The runtime against runc and crun: time of each verb, memory, the lowest limit that a container starts in, instructions."""
import ctypes, itertools, json, os, statistics, sys, time
from bench_measure import BIN, COUNT, PAUSE, ROOT, ROOTFS, WORK, in_memory, interval, pairs, run, timed

OURS = f"{WORK}/martlet-runtime"
numbers = itertools.count()


def install():
    """Copies ours, as `make install` does: of a file as the linker has left it, the page cache has single pages, which are a tenth
    of a start slower than the folios of one that was written or read in one piece."""
    run("install", f"{BIN}/martlet-runtime", OURS)


def bundle():
    """Of a no-op."""
    folder = f"{WORK}/bundle"
    if not os.path.exists(folder):
        os.makedirs(f"{folder}/rootfs")
        run("tar", "-C", f"{folder}/rootfs", "-xf", ROOTFS)
        run("runc", "spec", "-b", folder)
        spec = json.load(open(f"{folder}/config.json"))
        spec["process"]["args"] = ["/bin/true"]
        spec["process"]["terminal"] = False
        spec["process"].pop("rlimits", None)
        json.dump(spec, open(f"{folder}/config.json", "w"))
    return folder


def changed(name, change):
    """The bundle with another configuration."""
    folder = f"{WORK}/{name}"
    os.makedirs(folder, exist_ok=True)
    spec = json.load(open(f"{bundle()}/config.json"))
    spec["root"]["path"] = f"{bundle()}/rootfs"
    change(spec)
    json.dump(spec, open(f"{folder}/config.json", "w"))
    return folder


class Runtime:
    def __init__(self, program):
        self.name = os.path.basename(program)
        self.command = [program, "--root", f"{WORK}/state/{self.name}"]

    def run(self, folder, pause=0):
        time.sleep(pause)
        return timed(self.command + ["run", "-b", folder, f"bench-{os.getpid()}-{next(numbers)}"])

    def life(self, folder, pause=0):
        """Milliseconds of each verb in the life of one container; `pause` seconds before each."""
        name = f"bench-{os.getpid()}-{next(numbers)}"

        def verb(*words):
            time.sleep(pause)
            return timed(self.command + list(words))

        took = {"create": verb("create", "-b", folder, name), "start": verb("start", name), "state": verb("state", name),
                "exec": verb("exec", name, "/bin/true")}
        run(*self.command, "kill", name, "KILL")
        while json.loads(run(*self.command, "state", name).stdout)["status"] != "stopped":
            time.sleep(0.001)
        took["delete"] = verb("delete", name)
        return took

    def peak(self, *words):
        """The most resident memory of the runtime's processes in KiB. time(1) starts it: a child begins with the peak of
        the program that it was made by, which would be that of Python."""
        told = f"{WORK}/peak"
        run("/usr/bin/time", "-o", told, "-f", "%M", *self.command, *words)
        return int(open(told).read().split()[-1])

    def starts(self, limit):
        """Whether a container runs three times of three in a memory cgroup of so many bytes."""
        def small(spec):
            spec["linux"].setdefault("resources", {})["memory"] = {"limit": limit}
        folder = changed("limited", small)
        for _ in range(3):
            name = f"bench-{os.getpid()}-{next(numbers)}"
            if run(*self.command, "run", "-b", folder, name, check=False).returncode != 0:
                run(*self.command, "delete", "-f", name, check=False)
                return False
        return True

    def lowest(self):
        """The lowest memory limit that a container starts in, in KiB, in steps of 64."""
        low, high = 0, 1024
        while not self.starts(high * 65536):
            low, high = high, high * 2
            if high > 65536:
                return None
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self.starts(middle * 65536) else (middle, high)
        return high * 64


class Floor:
    """The kernel's part of `run` and little else, by a program in C: see scripts/floor.c."""
    name = "the floor"
    hierarchies = ("cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids", "systemd")

    @classmethod
    def fits(cls):
        """It knows a host only where these are hierarchies of v1, each its own."""
        places = [f"/sys/fs/cgroup/{name}" for name in cls.hierarchies]
        return all(map(os.path.ismount, places)) and len({os.stat(place).st_dev for place in places}) == len(places)

    def __init__(self):
        self.program = f"{WORK}/floor"
        run("clang", "-O2", "-static", "-o", self.program, f"{ROOT}/scripts/floor.c")

    def run(self, folder, pause=0):
        time.sleep(pause)
        return timed([self.program, f"{folder}/rootfs", "/bin/true", f"bench-{os.getpid()}-{next(numbers)}"])


def alternate(ours, peers, count, measure):
    """What `measure` tells of us and of each peer, by the peer's name: `count` pairs for one peer, then for the next."""
    return {peer.name: [(measure(ours), measure(peer)) for _ in range(count)] for peer in peers}


def compare(title, measured, budget=None):
    """Prints a line of pairs of milliseconds, which `alternate` made."""
    parts = []
    for peer, taken in measured.items():
        ratios = [a / b for a, b in taken]
        low, high = interval(ratios)
        ours, theirs = (statistics.median(column) for column in zip(*taken))
        parts.append(f"{ours:.1f} ms against {peer} {theirs:.1f} ms: ratio {statistics.median(ratios):.2f} [{low:.2f}, {high:.2f}]")
    print(f"{title}: {'; '.join(parts)} over {len(taken)} pairs each{f', budget {budget}' if budget else ''}", flush=True)


def measure():
    """All of it, in a mount namespace of our own without the cgroup2 mount of a hybrid host, which crun refuses."""
    ours, peers = Runtime(OURS), [Runtime("runc"), Runtime("crun")]
    runtimes = [ours, *peers]
    count = int(COUNT or 50)
    floor = Floor() if Floor.fits() else print("the floor of run: skipped, not every controller has a hierarchy of v1 here")
    noop = bundle()
    asleep = changed("asleep", lambda spec: spec["process"].update(args=["sleep", "1000"]))
    for runtime in runtimes:
        runtime.run(noop), runtime.life(asleep)
    # One after the other without a pause, which is where the budgets count; and as a node does that is not starting containers
    # all the time: who moves another process into a cgroup then waits for a grace period of the kernel.
    for pause, suffix in ((0, ""), (PAUSE, f", {PAUSE * 1000:.0f} ms after the call before")):
        run_once = lambda runtime: runtime.run(noop, pause)
        compare(f"runtime run{suffix}", alternate(ours, peers, count, run_once), None if pause else "≤ 0.5 of crun")
        if floor:
            compare(f"the floor of run{suffix}", alternate(floor, peers[1:], count, run_once))
        lives = alternate(ours, peers, count, lambda runtime: runtime.life(asleep, pause))
        for verb in ("create", "start", "state", "exec", "delete"):
            taken = {peer: [(a[verb], b[verb]) for a, b in both] for peer, both in lives.items()}
            compare(f"runtime {verb}{suffix}", taken, "≤ 0.5 of crun" if verb == "exec" and not pause else None)

    peaks = [f"{runtime.name} {statistics.median(runtime.peak('run', '-b', noop, f'b{next(numbers)}') for _ in range(5))} KiB" for runtime in runtimes]
    print(f"peak RSS of run: {', '.join(peaks)}")
    lowest = [f"{runtime.name} {runtime.lowest() or 'more than 4 GiB'} KiB" for runtime in runtimes]
    print(f"lowest memory limit that a container starts in: {', '.join(lowest)} (budget: crun + 512)", flush=True)

    counter = f"{WORK}/instructions"
    run("clang", "-O2", "-o", counter, f"{ROOT}/scripts/instructions.c")
    # runc's, some hundred million, would take minutes.
    counts = []
    for runtime in (runtimes[0], runtimes[2]):
        result = run(counter, *runtime.command, "run", "-b", noop, f"bench-{os.getpid()}-{next(numbers)}")
        counts.append(f"{runtime.name} {int(result.stderr.split()[-1]) / 1e6:.2f} million")
    print(f"instructions of run in user space, the container's too: {', '.join(counts)}", flush=True)


def runtimes():
    install()
    in_memory(f"{WORK}/state")
    pairs("runtime run as the host is", lambda: Runtime(OURS).run(bundle()), lambda: Runtime("runc").run(bundle()), "runc", pause=0,
          why="four fifths of ours is the kernel: page faults of exec and exit, path lookups, mounts, cgroup files")
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            if ctypes.CDLL(None, use_errno=True).unshare(0x20000) != 0:  # CLONE_NEWNS
                raise OSError(ctypes.get_errno(), "unshare")
            run("mount", "--make-rprivate", "/")
            run("umount", "/sys/fs/cgroup/unified", check=False)
            measure()
            status = 0
        except BaseException as error:
            print(f"runtimes: {error}", flush=True)
        finally:
            os._exit(status)
    if os.waitpid(child, 0)[1] != 0:
        raise RuntimeError("the comparison with runc and crun ended early")
