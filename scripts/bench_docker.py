"""Docker's API as its command line uses it, asked by this script, so that the start of a Go program is not in the figures; and
what idle streams cost."""
import json, socket, sys, time
from bench_measure import WORK, pairs, resident


class Engine:
    """A daemon that speaks Docker's API, asked with as little work on this side as there can be: what Python's own HTTP client
    takes would be in both figures and hide the difference."""

    def __init__(self, path):
        self.path = path
        self.kept = None

    def connect(self):
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(self.path)
        return sock

    @staticmethod
    def request(method, target, body, headers=b""):
        content = b"" if body is None else json.dumps(body).encode()
        return b"%s /v1.41%s HTTP/1.1\r\nHost: docker\r\nContent-Type: application/json\r\nContent-Length: %d\r\n%s\r\n%s" % (
            method.encode(), target.encode(), len(content), headers, content)

    def ask(self, method, target, body=None):
        """The answer to a request on the connection that is kept."""
        if self.kept is None:
            self.kept = self.connect()
        self.kept.sendall(self.request(method, target, body))
        said = b""
        while b"\r\n\r\n" not in said:
            said += self.piece()
        head, content = said.split(b"\r\n\r\n", 1)
        head = head.lower()
        if b"\r\ncontent-length:" in head:
            length = int(head.split(b"\r\ncontent-length:")[1].split(b"\r\n")[0])
            while len(content) < length:
                content += self.piece()
        elif b"\r\ntransfer-encoding: chunked" in head:
            while not content.endswith(b"0\r\n\r\n"):
                content += self.piece()
            content = self.joined(content)
        if not head.split(b" ")[1].startswith(b"2"):
            raise RuntimeError(f"{method} {target}: {head[:40]} {content[:300]}")
        return json.loads(content) if content else None

    def piece(self):
        piece = self.kept.recv(65536)
        if not piece:
            raise RuntimeError(f"{self.path} closed the connection")
        return piece

    @staticmethod
    def joined(chunks):
        content = b""
        while chunks:
            size, rest = chunks.split(b"\r\n", 1)
            content += rest[:int(size, 16)]
            chunks = rest[int(size, 16) + 2:]
        return content

    def begin(self, method, target, body=None, upgrade=False):
        """A request on a connection of its own whose answer's head has been read."""
        sock = self.connect()
        sock.sendall(self.request(method, target, body, b"Connection: Upgrade\r\nUpgrade: tcp\r\n" if upgrade else b""))
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
