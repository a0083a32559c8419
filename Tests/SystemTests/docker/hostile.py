"""Requests that no good client makes, to the socket $1 (or, over TLS with the token $3, to host:port); $2 is how often the loops run. Nothing here may be answered with
5xx, harm another request, or do anything; the parts print their names when that holds.

The test beside it looks at the server's descriptors, threads and memory before and after."""
import http.client, io, json, os, re, select, socket, ssl, sys, tarfile, threading, time

PATH, COUNT = sys.argv[1], int(sys.argv[2])
TOKEN = sys.argv[3] if len(sys.argv) > 3 else None


class Sealed(ssl.SSLSocket):
    """Shows the token in every head that is sent whole."""

    def sendall(self, data, flags=0):
        data = bytes(data)
        for host in [b"\r\nHost: x\r\n", b"\r\nHost: docker\r\n"]:
            data = data.replace(host, host + b"Authorization: Bearer " + TOKEN.encode() + b"\r\n")
        return super().sendall(data, flags)


CONTEXT = ssl._create_unverified_context()
CONTEXT.sslsocket_class = Sealed


def part(function):
    function()
    print(function.__name__, flush=True)


def connect(timeout=15):
    if TOKEN:
        host, port = PATH.rsplit(":", 1)
        connection = CONTEXT.wrap_socket(socket.create_connection((host, int(port)), 30))
        connection.settimeout(timeout)
        return connection
    connection = socket.socket(socket.AF_UNIX)
    # Without a timeout, so that it waits while the server's backlog is full.
    connection.connect(PATH)
    connection.settimeout(timeout)
    return connection


class Client(http.client.HTTPConnection):
    def __init__(self):
        super().__init__("docker")

    def connect(self):
        self.sock = connect(60)


def ask(method, path, body=None, headers=None):
    """Status and body of an ordinary request."""
    client = Client()
    if body is not None and not isinstance(body, bytes):
        body, headers = json.dumps(body).encode(), {"Content-Type": "application/json"} | (headers or {})
    try:
        client.request(method, path, body, headers or {})
    except BrokenPipeError:
        # Refused before all of it was sent: the answer is there.
        pass
    answer = client.getresponse()
    data = answer.read()
    client.close()
    return answer.status, data


def raw(data, wait=10):
    """What comes back for these bytes until the other end closes or is silent."""
    connection = connect(wait)
    answer = b""
    try:
        connection.sendall(data)
        while chunk := connection.recv(65536):
            answer += chunk
            if b"\r\n\r\n" in answer and b"Connection: close" not in answer and not select.select([connection], [], [], 0.3)[0]:
                break
    except (ConnectionError, TimeoutError):
        pass
    connection.close()
    return answer


def statuses(answer):
    return [int(code) for code in re.findall(rb"^HTTP/1\.[01] (\d{3}) ", answer, re.MULTILINE)]


def made(name, command, **more):
    status, data = ask("POST", f"/v1.41/containers/create?name={name}", {"Image": "busybox", "Cmd": command} | more)
    assert status == 201, (status, data)
    status, data = ask("POST", f"/v1.41/containers/{name}/start")
    assert status == 204, (status, data)


def alive():
    began = time.monotonic()
    assert ask("GET", "/_ping")[0] == 200
    assert time.monotonic() - began < 5, "the ping waits"


made("victim", ["sleep", "10000"])


@part
def malformed():
    long = b"a" * 200_000
    head = b"GET /_ping HTTP/1.1\r\nHost: x\r\n"
    for data in [
        b"nonsense\r\n\r\n", b"\x00\x01\x02\x03\r\n\r\n", b"GET\r\n\r\n", b"GET /_ping HTTP/9.9\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01",
        head + b"Content-Length: -1\r\n\r\n", head + b"Content-Length: 1x\r\n\r\n", head + b"Content-Length: 99999999999999999999\r\n\r\n",
        head + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab", head + b"A\x00B: c\r\n\r\n", head + b"A B: c\r\n\r\n", head + b" folded: x\r\n\r\n",
        head + b"Long: " + long + b"\r\n\r\n", b"GET /" + long + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /v1.41/containers/create HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Type: application/json\r\n\r\nFFFFFFFFFFFFFFFFF\r\n",
        b"POST /v1.41/containers/create HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Type: application/json\r\n\r\nzz\r\n\r\n",
    ]:
        answer = raw(data)
        assert all(400 <= status < 500 or status in (200, 505, 501) for status in statuses(answer)), (data[:80], answer[:300])
        alive()
    for path in ["/v1.41/containers/%00/json", "/v1.41/containers/%ff/json", "/v1.41/containers/..%2f..%2fetc/json", "/v1.41/containers/%zz/json",
                 "/v1.99/info", "/v1.2/info", "/v1.x/info", "/v2/info", "/v1.41", "/v1.41/nothing", "/v1.41/containers", "/v1.41/containers/a/b/c/json",
                 "/v1.41/containers/json?filters=nonsense", "/v1.41/containers/json?filters=%7B%22odd%22%3A%7B%22a%22%3Atrue%7D%7D",
                 "/v1.41/containers/json?limit=x", "/v1.41/events?since=x", "/v1.41/containers/victim/logs", "/v1.41/images/a%0Ab/json",
                 "/v1.41/containers/json?filters=" + "%5B" * 5000]:
        status, data = ask("GET", path)
        assert 400 <= status < 500, (path[:100], status, data)
        assert json.loads(data)["message"], (path, data)


@part
def bodies():
    create = "/v1.41/containers/create"
    content = {"Content-Type": "application/json"}
    for body in [b"", b"nonsense", b"[]", b"null", b'"text"', b'{"Image": 7}', b'{"Image": "busybox", "Cmd": {"a": 1}}', b'{"Image": "busybox", "HostConfig": []}',
                 b'{"Image": "busybox", "HostConfig": {"Memory": "much"}}', b'{"Image": "busybox", "HostConfig": {"Memory": -5}}', b'{"Image":"\xff\xfe"}',
                 b'{"Image": "busybox", "HostConfig": {"Binds": ["/etc"]}}', b'{"Image": "busybox", "HostConfig": {"Binds": ["../x:/y"]}}',
                 b'{"Image": "busybox", "HostConfig": {"Binds": ["/:/x:odd"]}}', b'{"Image": "busybox", "HostConfig": {"NetworkMode": "container:"}}',
                 b'{"Image": "busybox", "HostConfig": {"PortBindings": {"80/tcp": [{"HostPort": "99999"}]}}}', b'{"Image": "busybox", "User": "' + b"x" * 100_000 + b'"}',
                 b"[" * 100_000, b'{"Image": "../../etc/passwd"}', b'{"Image": ""}', b"{" + b'"a":{' * 5000]:
        status, data = ask("POST", create, body, content)
        assert 400 <= status < 500 and json.loads(data)["message"], (body[:80], status, data[:200])
    assert ask("POST", create, b'{"Image":"busybox"}', {"Content-Type": "text/plain"})[0] == 400
    assert ask("POST", create, b" " * (5 << 20), content)[0] == 413
    assert ask("POST", create + "?name=..%2fx", {"Image": "busybox"})[0] == 400
    for path, body in [("/v1.41/containers/victim/exec", {}), ("/v1.41/containers/victim/exec", {"Cmd": []}), ("/v1.41/exec/nothing/start", {}),
                       ("/v1.41/containers/victim/update", {"Memory": "x"}), ("/v1.41/containers/victim/rename?name=a/b", None),
                       ("/v1.41/containers/victim/kill?signal=NONSENSE", None), ("/v1.41/containers/victim/resize?h=x&w=y", None),
                       ("/v1.41/networks/create", {"Name": "../x"}), ("/v1.41/volumes/create", {"Name": "../x"}), ("/v1.41/images/create?fromImage=" + "x" * 9000, None),
                       ("/v1.41/containers/victim/attach?detachKeys=nonsense-keys-at-all&stream=1", None)]:
        status, data = ask("POST", path, body)
        assert 400 <= status < 500, (path[:80], status, data)
    for body in [b"nonsense", b"\x1f\x8b\x08nonsense", b"\x00" * 100_000]:
        status, data = ask("PUT", "/v1.41/containers/victim/archive?path=/tmp", body, {"Content-Type": "application/x-tar"})
        assert status < 500, (status, data)
        status, data = ask("POST", "/v1.41/images/load", body, {"Content-Type": "application/x-tar"})
        assert status < 500, (status, data)
    assert len(json.loads(ask("GET", "/v1.41/containers/json?all=1")[1])) == 1, "something was made"


@part
def smuggling():
    kill = b"DELETE /v1.41/containers/victim?force=1 HTTP/1.1\r\nHost: x\r\n\r\n"
    head = b"POST /v1.41/containers/nobody/wait HTTP/1.1\r\nHost: x\r\n"
    length = b"Content-Length: %d\r\n" % len(kill)
    for data in [
        head + length + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + kill,
        head + b"Transfer-Encoding: chunked\r\n" + length + b"\r\n0\r\n\r\n" + kill,
        head + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + kill,
        head + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n" + kill,
        head + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + kill,
        head + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n" + kill,
        head + b"Transfer-Encoding: identity\r\n\r\n" + kill,
        head + b'Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n' + kill,
        head + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n" + kill,
        head + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + kill,
        head + b"Transfer-Encoding: chunked\r\n\r\n 0\r\n\r\n" + kill,
        head + b"Transfer-Encoding: chunked\r\n\r\n0\n\r\n" + kill,
        head + b"Transfer-Encoding: chunked\r\n\r\n+5\r\nhello\r\n0\r\n\r\n" + kill,
        head + b"Transfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n" + kill,
        head.replace(b"1.1", b"1.0") + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + kill,
        head + b"Connection: close\r\n\r\n" + kill,
        b"GET /_ping HTTP/1.0\r\n\r\n" + kill,
        b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n" + kill,
        b"GET /_ping HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n" + kill,
        head + b"Content-Length: 0\r\n" + length + b"\r\n" + kill,
        head + b"Content-Length: +%d\r\n\r\n" % len(kill) + kill,
        head + b"Content-Length: 0x%x\r\n\r\n" % len(kill) + kill,
        head + length + b"\r\n" + kill,
        b"GET /_ping HTTP/1.1\r\nHost: x\r\n" + length + b"\r\n" + kill,
        b"GET /_ping HTTP/1.1\nHost: x\n" + length.replace(b"\r", b"") + b"\n" + kill,
        b"GET /_ping\r\nX: y HTTP/1.1\r\nHost: x\r\n" + length + b"\r\n" + kill,
    ]:
        answer = raw(data)
        assert 204 not in statuses(answer), (data, answer)
        assert ask("GET", "/v1.41/containers/victim/json")[0] == 200, data
    # What is sent after an upgrade is a stream, not a request.
    upgrade = (b"POST /v1.41/containers/victim/attach?stream=1&stdout=1 HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
    assert b" 101 " in raw(upgrade + kill, wait=2)[:20]
    assert ask("GET", "/v1.41/containers/victim/json")[0] == 200


@part
def half_open():
    # Of one address, only so many may come that have not said who they are.
    open_ones = [connect() for _ in range(100 if TOKEN else 200)]
    for number, connection in enumerate(open_ones):
        connection.sendall(b"POST /v1.41/containers/create HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"[:5 + number])
    alive()
    for _ in range(3):
        for connection in open_ones[:20]:
            try:
                connection.sendall(b"x")
            except ConnectionError:
                pass
        time.sleep(0.3)
        alive()
    for connection in open_ones:
        connection.close()
    alive()


@part
def closed_early():
    head = b"Host: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Type: application/json\r\n"
    attach = b"POST /v1.41/containers/victim/attach?stream=1&stdin=1&stdout=1&stderr=1&logs=1 HTTP/1.1\r\n" + head + b"\r\n"
    for number in range(COUNT):
        connection = connect()
        connection.sendall(attach)
        if number % 3:
            assert b" 101 " in connection.recv(20)
        if number % 2:
            connection.sendall(b"x" * 1000)
        connection.close()
    alive()
    for number in range(COUNT):
        status, data = ask("POST", "/v1.41/containers/victim/exec", {"AttachStdin": True, "AttachStdout": True, "Cmd": ["cat"]})
        assert status == 201, (status, data)
        body = b'{"Detach": false, "Tty": false}'
        connection = connect()
        connection.sendall(b"POST /v1.41/exec/%s/start HTTP/1.1\r\n" % json.loads(data)["Id"].encode() + head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        if number % 3:
            assert b" 101 " in connection.recv(20)
        connection.close()
    alive()
    for path in ["/v1.41/events", "/v1.41/containers/victim/logs?follow=1&stdout=1", "/v1.41/containers/victim/stats"]:
        for _ in range(max(3, COUNT // 20)):
            connection = connect()
            connection.sendall(b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n" % path.encode())
            connection.recv(12)
            connection.close()
    for _ in range(max(3, COUNT // 20)):
        connection = connect()
        connection.sendall(b"POST /v1.41/containers/victim/wait HTTP/1.1\r\nHost: x\r\n\r\n")
        connection.recv(12)
        connection.close()
        connection = connect()
        connection.sendall(b"PUT /v1.41/containers/victim/archive?path=/tmp HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n" + b"x" * 512)
        connection.close()
    alive()

    def left():
        titles = json.loads(ask("GET", "/v1.41/containers/victim/top")[1])
        return len(titles["Processes"])

    end = time.monotonic() + 30
    while left() > 1:
        assert time.monotonic() < end, "execs are left whose clients have gone"
        time.sleep(0.2)


@part
def symlinks():
    """A container that swaps a folder and a link to the host's canary while archives come and go."""
    canary = os.environ["CANARY"]
    made("swapper", ["sh", "-c", f"mkdir -p /a; while :; do rm -rf /a/x; ln -s {canary} /a/x; rm -f /a/x; mkdir /a/x; done"])
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for name in ["here", "../above", "x/../../over", f"{canary}/absolute"]:
            info = tarfile.TarInfo(name)
            info.size = 1
            tar.addfile(info, io.BytesIO(b"x"))
        for name, target in [("link", canary), ("up", "../../../../../../.." + canary)]:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            tar.addfile(info)
            info = tarfile.TarInfo(f"{name}/through")
            info.size = 1
            tar.addfile(info, io.BytesIO(b"x"))
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as tar:
        info = tarfile.TarInfo("file")
        info.size = 1
        tar.addfile(info, io.BytesIO(b"x"))
    headers = {"Content-Type": "application/x-tar"}
    for number in range(max(20, COUNT // 20)):
        for path in ["/a/x", "/a", "/a/x/.", f"/a/x/../../..{canary}"]:
            for archive in [data, plain]:
                status, answer = ask("PUT", f"/v1.41/containers/swapper/archive?path={path}", archive.getvalue(), headers)
                assert status < 500, (status, answer)
            for method in ["GET", "HEAD"]:
                status, answer = ask(method, f"/v1.41/containers/swapper/archive?path={path}/secret")
                assert status < 500 and b"from the host" not in answer, (status, answer[:100])
    assert os.listdir(canary) == ["secret"], os.listdir(canary)
    assert ask("DELETE", "/v1.41/containers/swapper?force=1")[0] == 204


assert ask("DELETE", "/v1.41/containers/victim?force=1")[0] == 204
