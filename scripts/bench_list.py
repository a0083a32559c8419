"""Lists of 50,000 containers through the Docker API: a master alone, whose nodes are played by this script."""
import concurrent.futures, contextlib, http.client, json, os, shutil, signal, socket, statistics, subprocess, sys, threading, time, urllib.parse
from bench_measure import ENV, MARTLET, WORK, resident, until

CONTAINERS = int(os.environ.get("MARTLET_BENCH_CONTAINERS", "50000"))
NODES = 10
DIGEST = "sha256:" + "1" * 64
local = threading.local()


class Connection(http.client.HTTPConnection):
    """HTTP on a socket of the file system."""

    def __init__(self, path):
        super().__init__("localhost")
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self.path)


def call(path, method, target, body=None):
    """One request on the thread's own connection."""
    if getattr(local, "path", None) != path:
        local.path, local.connection = path, Connection(path)
    local.connection.request(method, target, None if body is None else json.dumps(body), {"Content-Type": "application/json"})
    answer = local.connection.getresponse()
    content = answer.read()
    if answer.status >= 300:
        raise RuntimeError(f"{method} {target}: {answer.status} {content[:300]}")
    return json.loads(content) if content else None


@contextlib.contextmanager
def master():
    place = f"{WORK}/list"
    path = f"{place}/run/martlet.sock"
    os.makedirs(place)
    process = subprocess.Popen([MARTLET, "master", "--data-dir", f"{place}/data", "--run-dir", f"{place}/run"], env=ENV, stdin=subprocess.DEVNULL,
                               stdout=subprocess.DEVNULL, stderr=open(f"{place}/log", "w"))
    try:
        until("the master's socket", lambda: os.path.exists(path) or process.poll() is not None)
        if process.poll() is not None:
            raise RuntimeError(f"the master ended: {open(f'{place}/log').read()[-500:]}")
        yield path, process.pid
    finally:
        process.terminate()
        process.wait()
        shutil.rmtree(place, ignore_errors=True)


def node(path, number):
    platform = {"os": "linux", "architecture": "amd64"}
    call(path, "POST", "/api/v1/nodes", {"node": {
        "id": f"node{number}", "name": f"n{number}", "labels": {}, "availability": "active", "platform": platform, "features": [],
        "capacity": {"cpu": 64_000_000_000, "memory": 1 << 40}, "address": f"10.0.0.{number + 1}", "streamEndpoint": f"unix:/nowhere/{number}",
        "agentVersion": "0", "kernelVersion": "6", "bootID": "b", "createdAt": "2026-01-01T00:00:00Z"}})
    image = {"names": ["web:latest"], "digest": DIGEST, "id": DIGEST, "size": 1, "platform": platform, "nodes": []}
    call(path, "POST", f"/api/v1/nodes/node{number}/status", {"full": True, "tasks": [], "images": [image], "volumes": [], "events": []})


def container(path, number):
    spec = {"image": "web:latest", "command": ["serve", "--port", "80"], "labels": {
        "com.docker.compose.project": f"project{number // 50}", "com.docker.compose.service": f"web{number % 7}", "number": str(number)}}
    call(path, "POST", "/api/v1/containers", {"name": f"container-{number}", "start": False, "pod": {"containers": [spec]}})


def report(path, number):
    """The node says that all its containers run, but for every tenth."""
    name = f"node{number}"
    tasks = call(path, "GET", f"/api/v1/nodes/{name}/tasks")
    for begin in range(0, len(tasks), 500):
        reports = []
        for index, task in enumerate(tasks[begin:begin + 500]):
            ended = index % 10 == 0
            status = {"name": "main", "id": task["containers"][0], "state": "exited" if ended else "running", "start": 1, "pid": 1, "outOfMemory": False, "reason": "",
                      "startedAt": "2026-01-01T00:00:00Z", "restarts": 0, "health": "none", "failingStreak": 0}
            if ended:
                status |= {"exitCode": 3, "finishedAt": "2026-01-01T00:01:00Z"}
            reports.append({"task": task["task"], "instance": task["instance"], "epoch": task["epoch"], "status": {
                "phase": "exited" if ended else "running", "generation": task["generation"], "containers": [status], "addresses": ["10.1.2.3"],
                "message": "", "serving": not ended}})
        call(path, "POST", f"/api/v1/nodes/{name}/status", {"full": False, "tasks": reports, "events": []})


def fetch(path, query):
    """Milliseconds to the first byte of the body and to the last, and how many containers there are."""
    start = time.monotonic()
    connection = Connection(path)
    connection.request("GET", f"/v1.41/containers/json?{query}")
    answer = connection.getresponse()
    pieces = [answer.read1(1 << 16)]
    first = time.monotonic()
    while piece := answer.read1(1 << 20):
        pieces.append(piece)
    end = time.monotonic()
    connection.close()
    if answer.status != 200:
        raise RuntimeError(f"{query}: {answer.status} {pieces[0][:300]}")
    return (first - start) * 1000, (end - start) * 1000, len(json.loads(b"".join(pieces)))


def highest(pid):
    return next(int(line.split()[1]) for line in open(f"/proc/{pid}/status") if line.startswith("VmHWM"))


def measure(path, pid):
    for number in range(NODES):
        report(path, number)
    before = resident(pid)
    open(f"/proc/{pid}/clear_refs", "w").write("5")
    runs = [fetch(path, "all=1") for _ in range(10)]
    extra = highest(pid) - before
    if {count for _, _, count in runs} != {CONTAINERS}:
        raise RuntimeError(f"the list has {sorted({count for _, _, count in runs})} containers, not {CONTAINERS}")
    median = lambda index: statistics.median(run[index] for run in runs)
    print(f"list of {CONTAINERS} containers through the Docker API: first byte after {median(0):.1f} ms (budget ≤ 50), "
          f"the last after {median(1):.0f} ms (budget ≤ 1000), {max(0, extra) / 1024:.1f} MiB more RSS (budget ≤ 64), idle {before / 1024:.0f} MiB")
    pinged(path)
    number = CONTAINERS // 3
    for title, filters in [("label", {"label": [f"com.docker.compose.project=project{number // 50}"]}), ("name", {"name": [f"^/container-{number}$"]}),
                           ("part of a name", {"name": [f"ner-{number}"]}), ("expression", {"name": [f"^container-[0-9]+{number}$"]}), ("status", {"status": ["paused"]}),
                           ("exit code", {"exited": ["77"]}), ("image", {"ancestor": ["other"]}), ("network", {"network": ["backend"]})]:
        query = "all=1&filters=" + urllib.parse.quote(json.dumps(filters))
        took = [fetch(path, query) for _ in range(10)]
        print(f"    by {title}: {statistics.median(run[1] for run in took):.1f} ms, {took[0][2]} found (budget ≤ 20)")
    sys.stdout.flush()


def pinged(path):
    """How long `_ping` takes while another client reads the whole list, again and again."""
    # A program of its own: two threads of Python would wait for one another.
    reader = subprocess.Popen(["sh", "-c", f"while :; do curl -s -o /dev/null --unix-socket '{path}' 'http://docker/v1.41/containers/json?all=1'; done"],
                              start_new_session=True)
    took = []
    connection = Connection(path)
    for _ in range(300):
        start = time.monotonic()
        connection.request("GET", "/_ping")
        connection.getresponse().read()
        took.append((time.monotonic() - start) * 1000)
        time.sleep(0.01)
    os.killpg(reader.pid, signal.SIGKILL)
    reader.wait()
    connection.close()
    print(f"    _ping meanwhile: median {statistics.median(took):.1f} ms, 99th of a hundred {sorted(took)[len(took) * 99 // 100]:.1f} ms")


def listed():
    with master() as (path, pid):
        for number in range(NODES):
            node(path, number)
        ended = threading.Event()

        def beat():
            while not ended.wait(3):
                for number in range(NODES):
                    call(path, "POST", f"/api/v1/nodes/node{number}/status", {"full": False, "tasks": [], "events": []})

        beats = threading.Thread(target=beat, daemon=True)
        beats.start()
        try:
            with concurrent.futures.ThreadPoolExecutor(32) as pool:
                list(pool.map(lambda number: container(path, number), range(CONTAINERS)))
            measure(path, pid)
        finally:
            ended.set()
            beats.join()
