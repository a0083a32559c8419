"""What the Python SDK is used for, against whatever DOCKER_HOST names, which has the image `busybox` and nothing else.
Each part prints its name when it is done; an assertion that does not hold ends the program."""
import io, os, socket, tarfile, threading, time

import docker
from docker.errors import APIError, ContainerError, ImageNotFound, NotFound
from docker.types import Mount

client = docker.from_env(timeout=30)


def part(function):
    function()
    print(function.__name__, flush=True)


def at(version):
    return docker.APIClient(base_url=os.environ["DOCKER_HOST"], version=version)


def until(holds, what, seconds=20):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, what
        time.sleep(0.1)


def refused(status, call):
    try:
        call()
    except APIError as error:
        assert error.response.status_code == status, (error.response.status_code, str(error))
        assert error.explanation, "no message"
    else:
        raise AssertionError(f"not refused with {status}")


@part
def versions():
    assert client.ping()
    newest = client.version()["ApiVersion"]
    assert at("auto").api_version <= newest
    old = at("1.24")
    assert old.version()["ApiVersion"] == newest and isinstance(old.containers(all=True), list)
    refused(400, at("1.99").version)
    assert client.info()["OSType"] == "linux" and client.info()["Images"] >= 1
    assert set(client.df()) >= {"LayersSize", "Images", "Containers", "Volumes"}


@part
def running():
    assert client.containers.run("busybox", "echo word", remove=True) == b"word\n"
    assert client.containers.run("busybox", ["sh", "-c", "echo out; echo err >&2"], stderr=True, remove=True) in (b"out\nerr\n", b"err\nout\n")
    try:
        client.containers.run("busybox", ["sh", "-c", "exit 4"])
        raise AssertionError("no error")
    except ContainerError as error:
        assert error.exit_status == 4
        error.container.remove()
    try:
        client.containers.create("nowhere/none:1")
        raise AssertionError("no error")
    except ImageNotFound:
        pass
    one = client.containers.run(
        "busybox", ["sh", "-c", "echo begun; exec sleep 1000"], name="one", detach=True, labels={"a": "b"}, environment={"A": "x"},
        mem_limit="64m", nano_cpus=500_000_000, ports={"80/tcp": ("127.0.0.1", 8090)}, volumes={"data": {"bind": "/data", "mode": "rw"}},
        mounts=[Mount("/scratch", None, type="tmpfs")], working_dir="/tmp", hostname="box", restart_policy={"Name": "on-failure", "MaximumRetryCount": 2})
    until(lambda: client.containers.get("one").status == "running", "it runs")
    one.reload()
    assert len(one.id) == 64 and one.name == "one" and one.labels == {"a": "b"}
    assert one.attrs["HostConfig"]["Memory"] == 64 << 20 and one.attrs["HostConfig"]["NanoCpus"] == 500_000_000
    assert one.ports["80/tcp"] == [{"HostIp": "127.0.0.1", "HostPort": "8090"}], one.ports
    assert one.attrs["Config"]["WorkingDir"] == "/tmp" and one.attrs["Config"]["Hostname"] == "box"
    assert {mount["Destination"] for mount in one.attrs["Mounts"]} >= {"/data"}
    assert [c.name for c in client.containers.list(filters={"label": "a=b"})] == ["one"]
    assert client.containers.list(filters={"label": "a=c"}) == []
    assert one.top()["Titles"]


@part
def logs():
    one = client.containers.get("one")
    until(lambda: one.logs() == b"begun\n", "the line is in the log")
    assert one.logs(tail=0) == b"" and one.logs(timestamps=True)[:2] == b"20"
    counting = client.containers.run("busybox", ["sh", "-c", "for i in 1 2 3; do echo $i; sleep 0.2; done"], detach=True)
    assert b"".join(counting.logs(stream=True, follow=True)) == b"1\n2\n3\n"
    assert counting.wait()["StatusCode"] == 0
    counting.remove()


@part
def execs():
    one = client.containers.get("one")
    code, output = one.exec_run(["sh", "-c", "echo $A $B; pwd; exit 3"], environment={"B": "y"}, workdir="/")
    assert (code, output) == (3, b"x y\n/\n"), (code, output)
    code, (out, err) = one.exec_run(["sh", "-c", "echo out; echo err >&2"], demux=True)
    assert (out, err) == (b"out\n", b"err\n")
    _, stream = one.exec_run("seq 3", stream=True)
    assert b"".join(stream) == b"1\n2\n3\n"
    code, wire = one.exec_run("cat", stdin=True, socket=True)
    wire._sock.sendall(b"through\n")
    wire._sock.shutdown(socket.SHUT_WR)
    data = b""
    while chunk := wire._sock.recv(4096):
        data += chunk
    assert data == b"\x01\x00\x00\x00\x00\x00\x00\x08through\n", data
    made = client.api.exec_create("one", "true")["Id"]
    client.api.exec_start(made)
    info = client.api.exec_inspect(made)
    assert info["ExitCode"] == 0 and info["Running"] is False and info["ContainerID"] == one.id, info
    refused(404, lambda: client.api.exec_start("0" * 64))


@part
def attaching():
    cat = client.containers.create("busybox", "cat", stdin_open=True)
    wire = cat.attach_socket(params={"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1})
    cat.start()
    wire._sock.sendall(b"hello\n")
    wire._sock.shutdown(socket.SHUT_WR)
    data = b""
    while chunk := wire._sock.recv(4096):
        data += chunk
    assert data == b"\x01\x00\x00\x00\x00\x00\x00\x06hello\n", data
    assert cat.wait()["StatusCode"] == 0
    assert cat.logs() == b"hello\n"
    cat.remove()
    raw = client.containers.create("busybox", ["sh", "-c", "sleep 0.5; exit 6"])
    results = []
    waiting = threading.Thread(target=lambda: results.append(raw.wait(condition="next-exit")))
    waiting.start()
    time.sleep(0.3)
    raw.start()
    waiting.join()
    assert results[0]["StatusCode"] == 6, results
    raw.remove()


@part
def archives():
    one = client.containers.get("one")
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        info = tarfile.TarInfo("folder/file")
        info.size = 5
        tar.addfile(info, io.BytesIO(b"text\n"))
    assert one.put_archive("/tmp", data.getvalue())
    assert one.exec_run("cat /tmp/folder/file").output == b"text\n"
    chunks, stat = one.get_archive("/tmp/folder")
    assert stat["name"] == "folder" and stat["mode"] & 0x80000000, stat
    with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as tar:
        assert tar.extractfile("folder/file").read() == b"text\n"
    refused(404, lambda: one.get_archive("/no/such"))
    assert {change["Path"] for change in one.diff()} >= {"/tmp/folder/file"}
    with tarfile.open(fileobj=io.BytesIO(b"".join(one.export()))) as tar:
        assert "bin/busybox" in tar.getnames() or "./bin/busybox" in tar.getnames()


@part
def statistics():
    one = client.containers.get("one")
    now = one.stats(stream=False)
    assert now["memory_stats"]["usage"] > 0 and now["cpu_stats"]["cpu_usage"]["total_usage"] > 0 and "precpu_stats" in now
    stream = one.stats(stream=True, decode=True)
    first, second = next(stream), next(stream)
    assert second["read"] > first["read"]
    stream.close()


@part
def events():
    since = int(time.time()) - 1
    stream = client.events(since=since, decode=True, filters={"container": "seen"})
    client.containers.run("busybox", "true", name="seen", remove=True)
    actions = []
    for event in stream:
        actions.append(event["Action"])
        assert event["Type"] == "container" and event["Actor"]["Attributes"]["name"] == "seen"
        if event["Action"] == "destroy":
            break
    stream.close()
    wanted = ["create", "start", "die", "destroy"]
    assert [action for action in actions if action in wanted] == wanted, actions


@part
def lifecycle():
    one = client.containers.get("one")
    one.pause()
    assert client.containers.get("one").status == "paused"
    one.unpause()
    one.update(mem_limit="128m", memswap_limit="128m")
    one.rename("uno")
    assert client.containers.get("uno").attrs["HostConfig"]["Memory"] == 128 << 20
    one.restart(timeout=0)
    until(lambda: client.containers.get("uno").status == "running", "it runs again")
    one.kill("SIGKILL")
    assert one.wait()["StatusCode"] == 137
    assert client.containers.get("uno").status == "exited"
    refused(409, lambda: one.kill())
    one.start()
    one.stop(timeout=0)
    image = one.commit("made", "1", changes="ENV C=d")
    assert "made:1" in image.tags and "C=d" in image.attrs["Config"]["Env"]
    one.remove(v=True)
    try:
        client.containers.get("uno")
        raise AssertionError("still there")
    except NotFound:
        pass
    client.images.remove("made:1")


@part
def images():
    image = client.images.get("busybox")
    assert image.id.startswith("sha256:") and "busybox:latest" in image.tags and image.attrs["Size"] > 0
    assert image.tag("again", "2")
    assert {"busybox:latest", "again:2"} <= {tag for image in client.images.list() for tag in image.tags}
    saved = b"".join(client.images.get("again:2").save(named="again:2"))
    client.images.remove("again:2")
    assert [loaded.tags for loaded in client.images.load(saved)] and client.images.get("again:2").id
    client.images.remove("again:2")
    assert image.history()[0]["Id"]
    try:
        client.images.get("nowhere:1")
        raise AssertionError("found")
    except ImageNotFound:
        pass
    try:
        client.images.pull("127.0.0.1:1/none", "1")
        raise AssertionError("pulled")
    except (APIError, ImageNotFound, NotFound):
        pass
    assert "SpaceReclaimed" in client.images.prune()


@part
def networks():
    net = client.networks.create("net", driver="bridge", labels={"l": "m"})
    assert [n.name for n in client.networks.list(filters={"label": "l=m"})] == ["net"]
    web = client.containers.run("busybox", ["sh", "-c", "echo page >/www/index.html; exec httpd -f -h /www"], name="web", network="net", detach=True)
    fetch = ["sh", "-c", "for i in 1 2 3 4 5 6; do wget -q -O - http://$0/ && break; sleep 0.5; done"]
    assert client.containers.run("busybox", fetch + ["web"], network="net", remove=True) == b"page\n"
    second = client.networks.create("second")
    second.connect(web, aliases=["alias"])
    web.reload()
    assert set(web.attrs["NetworkSettings"]["Networks"]) == {"net", "second"}
    assert client.containers.run("busybox", fetch + ["alias"], network="second", remove=True) == b"page\n"
    second.disconnect(web)
    second.remove()
    refused(403, net.remove)
    web.remove(force=True)
    net.remove()
    assert client.networks.prune() is not None


@part
def volumes():
    volume = client.volumes.create("kept", labels={"x": "y"})
    assert volume.attrs["Driver"] == "local" and volume.attrs["Labels"] == {"x": "y"} and volume.attrs["Mountpoint"]
    client.containers.run("busybox", "touch /v/file", volumes=["kept:/v"], remove=True)
    assert client.containers.run("busybox", "ls /v", volumes=["kept:/v:ro"], remove=True) == b"file\n"
    assert "kept" in [v.name for v in client.volumes.list(filters={"dangling": True})]
    volume.remove()
    client.volumes.get("data").remove()
    assert client.volumes.list() == []
    refused(404, lambda: client.volumes.get("kept"))


assert client.containers.list(all=True) == [], client.containers.list(all=True)
