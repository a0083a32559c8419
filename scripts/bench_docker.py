"""Docker's API as its command line uses it, asked by this script, so that the start of a Go program is not in the figures; and
what idle streams cost."""
import http.client, json, socket, sys, time
from bench_measure import WORK, pairs, resident


class Connection(http.client.HTTPConnection):
    """HTTP on a socket of the file system."""

    def __init__(self, path):
        super().__init__("localhost")
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self.path)


class Engine:
    """A daemon that speaks Docker's API."""

    def __init__(self, path):
        self.path = path
        self.connection = Connection(path)

    def ask(self, method, target, body=None):
        self.connection.request(method, f"/v1.41{target}", None if body is None else json.dumps(body), {"Content-Type": "application/json"})
        answer = self.connection.getresponse()
        content = answer.read()
        if answer.status >= 300:
            raise RuntimeError(f"{method} {target}: {answer.status} {content[:300]}")
        return json.loads(content) if content else None

    def begin(self, method, target, body=None, upgrade=False):
        """A request on a connection of its own whose answer's head has been read."""
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(self.path)
        content = b"" if body is None else json.dumps(body).encode()
        head = f"{method} /v1.41{target} HTTP/1.1\r\nHost: docker\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n"
        head += "Connection: Upgrade\r\nUpgrade: tcp\r\n" if upgrade else ""
        sock.sendall(head.encode() + b"\r\n" + content)
        said = b""
        while b"\r\n\r\n" not in said:
            piece = sock.recv(4096)
            if not piece:
                break
            said += piece
        if said.split(b" ")[1:2] not in ([b"101"], [b"200"]):
            raise RuntimeError(f"{method} {target}: {said[:300]}")
        return sock

    def run(self):
        """Milliseconds of what `docker run --rm busybox true` asks for."""
        start = time.monotonic()
        name = self.ask("POST", "/containers/create", {"Image": "busybox", "Cmd": ["true"], "AttachStdout": True, "AttachStderr": True,
                                                       "HostConfig": {"AutoRemove": True}})["Id"]
        stream = self.begin("POST", f"/containers/{name}/attach?stderr=1&stdout=1&stream=1", upgrade=True)
        gone = self.begin("POST", f"/containers/{name}/wait?condition=removed")
        self.ask("POST", f"/containers/{name}/start")
        while stream.recv(65536):
            pass
        stream.close()
        gone.settimeout(60)
        said = b""
        while b"}" not in said:
            said += gone.recv(4096)
        gone.close()
        return (time.monotonic() - start) * 1000

    def exec(self):
        """Milliseconds of what `docker exec host true` asks for."""
        start = time.monotonic()
        self.ask("GET", "/containers/host/json")
        name = self.ask("POST", "/containers/host/exec", {"Cmd": ["true"], "AttachStdout": True, "AttachStderr": True})["Id"]
        stream = self.begin("POST", f"/exec/{name}/start", {"Detach": False, "Tty": False}, upgrade=True)
        while stream.recv(65536):
            pass
        stream.close()
        code = self.ask("GET", f"/exec/{name}/json")["ExitCode"]
        if code != 0:
            raise RuntimeError(f"exec ended with {code}")
        return (time.monotonic() - start) * 1000


def requests():
    """The requests of the command line alone, ours against dockerd's."""
    ours, theirs = Engine(f"{WORK}/run/martlet.sock"), Engine(f"{WORK}/docker.sock")
    pairs("docker run --rm, its requests alone", ours.run, theirs.run, "dockerd", budget="≤ 0.2")
    pairs("docker exec, its requests alone", ours.exec, theirs.exec, "dockerd", budget="≤ 0.2")


def streams(count=200):
    """What an idle stream costs master and agent, which are one process here; a shim has no part in these."""
    engine = Engine(f"{WORK}/run/martlet.sock")
    daemon = int(open(f"{WORK}/run/up.pid").read().split()[0])
    kept = []
    for title, target in [("logs -f", "/containers/host/logs?stdout=1&stderr=1&follow=1"), ("events", "/events")]:
        # The first ones pay for what all share.
        warm = [engine.begin("GET", target) for _ in range(count // 4)]
        time.sleep(3)
        before = resident(daemon)
        open_streams = [engine.begin("GET", target) for _ in range(count)]
        time.sleep(3)
        print(f"an idle `{title}` stream: {(resident(daemon) - before) / count:.0f} KiB of master's and agent's RSS (budget ≤ 40)")
        # They stay open: what a stream gives back would be the next ones'.
        kept += warm + open_streams
    for stream in kept:
        stream.close()
    sys.stdout.flush()
