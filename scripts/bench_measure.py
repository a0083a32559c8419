"""Interleaved pairs with their ratio's interval, and what processes hold of the memory."""
import atexit, os, random, shutil, statistics, subprocess, sys, tempfile, time

ROOT = os.getcwd()
# Programs of another build: for the development of these scripts only, since only a release build has figures that count.
BIN = os.environ.get("MARTLET_BENCH_BIN", f"{ROOT}/.build/release")
MARTLET = f"{BIN}/martlet"
BUSYBOX = f"{ROOT}/.build/assets/busybox"
ROOTFS = f"{ROOT}/.build/assets/rootfs.tar"
WORK = tempfile.mkdtemp(prefix="martlet-bench-")
atexit.register(shutil.rmtree, WORK, ignore_errors=True)
ENV = {**os.environ, "MARTLET_HOST": f"unix:{WORK}/run/martlet.sock", "DOCKER_HOST": f"unix://{WORK}/docker.sock"}
# The number of pairs, for trying these scripts out; the figures take what each line says.
COUNT = os.environ.get("MARTLET_BENCH_PAIRS")


def run(*command, check=True, **options):
    result = subprocess.run(command, env=ENV, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)
    if check and result.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {result.stderr.strip()[-500:]}")
    return result


def timed(command):
    """Milliseconds from the start of a command to its end. Python's own part of that, a millisecond with subprocess.run, is left
    out: it would be in both figures of a pair."""
    with open(f"{WORK}/said", "wb+") as said:
        null = os.open(os.devnull, os.O_RDWR)
        try:
            streams = [(os.POSIX_SPAWN_DUP2, null, 0), (os.POSIX_SPAWN_DUP2, null, 1), (os.POSIX_SPAWN_DUP2, said.fileno(), 2)]
            start = time.monotonic()
            child = os.posix_spawnp(command[0], command, ENV, file_actions=streams)
            _, status = os.waitpid(child, 0)
            elapsed = time.monotonic() - start
        finally:
            os.close(null)
        if status != 0:
            said.seek(0)
            raise RuntimeError(f"{' '.join(command)}: {said.read().decode()[-500:]}")
    return elapsed * 1000


def until(what, condition, seconds=120, every=0.02):
    """Waits until `condition()` holds."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise RuntimeError(f"{what}: not within {seconds} s")
        time.sleep(every)


def in_memory(path):
    """A directory in memory, as /run is on the machines that these programs are for: what they keep there unless told otherwise."""
    if not os.path.ismount(path):
        os.makedirs(path)
        run("mount", "-t", "tmpfs", "-o", "mode=0755", "tmpfs", path)
        atexit.register(run, "umount", "--lazy", path, check=False)
    return path


def interval(values, rounds=2000):
    medians = sorted(statistics.median(random.choices(values, k=len(values))) for _ in range(rounds))
    return medians[int(rounds * 0.025)], medians[int(rounds * 0.975)]


# Seconds between two measurements: what a daemon still does after its answer, as clearing up after a container, is not to be
# in the other's figure.
PAUSE = 0.03


def pairs(title, ours, theirs, peer, count=30, budget=None, why="", size=None, pause=PAUSE):
    """Runs A B A B …; `ours` and `theirs` are commands or functions that return milliseconds.

    `size` is what both transfer in bytes: rates are printed as well then. `pause` seconds lie before each. Returns our median."""
    def measure(what):
        time.sleep(pause)
        return what() if callable(what) else timed(what)

    count = int(COUNT or count)
    measure(ours), measure(theirs)
    a, b = [], []
    for _ in range(count):
        a.append(measure(ours))
        b.append(measure(theirs))
    ratios = [x / y for x, y in zip(a, b)]
    low, high = interval(ratios)
    limit = f", budget {budget}" if budget else ""
    rate = lambda values: f" ({size / 1000 / statistics.median(values):.0f} MB/s)" if size else ""
    print(f"{title}: {statistics.median(a):.1f} ms{rate(a)} against {peer} {statistics.median(b):.1f} ms{rate(b)}: "
          f"ratio {statistics.median(ratios):.2f} [{low:.2f}, {high:.2f}] over {count} pairs{limit}")
    if why:
        print(f"    {why}")
    sys.stdout.flush()
    return statistics.median(a)


def memory(pid):
    """Private and, of it, anonymous memory of a process in KiB."""
    fields = {line.split(":")[0]: int(line.split()[1]) for line in list(open(f"/proc/{pid}/smaps_rollup"))[1:]}
    return fields["Private_Clean"] + fields["Private_Dirty"], fields["Anonymous"]


def resident(pid):
    """Resident memory of a process in KiB."""
    return next(int(line.split()[1]) for line in open(f"/proc/{pid}/status") if line.startswith("VmRSS"))
