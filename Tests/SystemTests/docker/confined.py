"""Asks $1 (host:port, TLS) with the token $3 of a developer who is confined to a group, beside the administrator's $2, for what
is the node's or another group's. The container `other`, the volume and the network `theirs` are there and not the developer's."""
import http.client, json, ssl, sys, time

HOST, ADMIN, DEVELOPER = sys.argv[1:]
context = ssl._create_unverified_context()


def ask(method, path, body=None, token=DEVELOPER):
    client = http.client.HTTPSConnection(HOST, context=context, timeout=60)
    if body is not None and not isinstance(body, bytes):
        body = json.dumps(body).encode()
    client.request(method, "/v1.41" + path, body, {"Authorization": f"Bearer {token}", "Content-Type": "application/json"})
    answer = client.getresponse()
    data = answer.read()
    client.close()
    return answer.status, data


def expect(wanted, method, path, body=None):
    status, data = ask(method, path, body)
    assert status == wanted, (wanted, method, path, body, status, data[:300])
    assert status < 400 or method == "HEAD" or json.loads(data)["message"], (method, path, data)
    return data


def refused(wanted=403, **host):
    return expect(wanted, "POST", "/containers/create", {"Image": "busybox", "Cmd": ["true"], "HostConfig": host})


for name, kind in [("theirs", "/volumes/create"), ("theirs", "/networks/create")]:
    assert ask("POST", kind, {"Name": name}, ADMIN)[0] == 201
foreign = json.loads(ask("POST", "/containers/other/exec", {"Cmd": ["cat"], "AttachStdin": True}, ADMIN)[1])["Id"]
expect(201, "POST", "/containers/create?name=mine", {"Image": "busybox", "Cmd": ["sleep", "10000"]})
expect(204, "POST", "/containers/mine/start")
made = len(json.loads(ask("GET", "/containers/json?all=1", token=ADMIN)[1]))

# What is the node's.
for host in [
    {"Privileged": True}, {"PidMode": "host"}, {"IpcMode": "host"}, {"UTSMode": "host"}, {"NetworkMode": "host"}, {"CgroupnsMode": "host"},
    {"Binds": ["/etc:/x"]}, {"Binds": ["/var/run/martlet:/x:ro"]}, {"Mounts": [{"Type": "bind", "Source": "/", "Target": "/x"}]},
    {"Devices": [{"PathOnHost": "/dev/null", "PathInContainer": "/dev/x", "CgroupPermissions": "rwm"}]}, {"DeviceCgroupRules": ["c 1:3 rwm"]},
    {"CapAdd": ["SYS_ADMIN"]}, {"CapAdd": ["ALL"]}, {"SecurityOpt": ["seccomp=unconfined"]}, {"OomScoreAdj": -500}, {"MaskedPaths": []}, {"ReadonlyPaths": []},
    {"Binds": ["theirs:/x"]}, {"Mounts": [{"Type": "volume", "Source": "theirs", "Target": "/x"}]},
]:
    refused(**host)
for host in [{"CgroupParent": "/x"}, {"Sysctls": {"kernel.panic": "1"}}, {"Sysctls": {"vm.swappiness": "1"}}]:
    refused(400, **host)
for host in [{"VolumesFrom": ["other"]}, {"Links": ["other:x"]}, {"PidMode": "container:other"}, {"IpcMode": "container:other"},
             {"NetworkMode": "container:other"}]:
    # 404 would mean to clients that there is no such image.
    data = refused(400, **host)
    assert b"there is no container" in data or b"No such container" in data, data
for options in [{"type": "none", "o": "bind", "device": "/etc"}, {"type": "ext4", "device": "/dev/sda1"}, {"type": "nfs", "device": ":/x", "o": "addr=1.2.3.4"}]:
    expect(403, "POST", "/volumes/create", {"Name": "mine", "DriverOpts": options})
expect(403, "POST", "/networks/create", {"Name": "mine", "Options": {"com.docker.network.bridge.name": "eth0"}})
expect(403, "POST", "/containers/mine/exec", {"Cmd": ["true"], "Privileged": True})

# What is another group's does not exist.
for method, path in [
    ("GET", "json"), ("GET", "logs?stdout=1"), ("GET", "top"), ("GET", "stats?stream=0"), ("GET", "changes"), ("GET", "export"), ("POST", "start"),
    ("POST", "stop"), ("POST", "kill"), ("POST", "restart"), ("POST", "pause"), ("POST", "unpause"), ("POST", "rename?name=mine2"), ("POST", "wait"),
    ("POST", "attach?stream=1"), ("POST", "resize?h=1&w=1"), ("GET", "archive?path=/"), ("HEAD", "archive?path=/"), ("PUT", "archive?path=/tmp"),
    ("POST", "update"), ("POST", "exec"),
]:
    expect(404, method, "/containers/other/" + path, {"Cmd": ["true"]} if method == "POST" else None)
expect(404, "DELETE", "/containers/other?force=1")
expect(404, "POST", "/commit?container=other")
for method, path in [("POST", "start"), ("POST", "resize?h=1&w=1"), ("GET", "json")]:
    expect(404, method, f"/exec/{foreign}/{path}", {} if method == "POST" else None)
for kind in ["volumes", "networks"]:
    expect(404, "GET", f"/{kind}/theirs")
    expect(404, "DELETE", f"/{kind}/theirs")
expect(201, "POST", "/networks/create", {"Name": "mine"})
for network, container in [("theirs", "mine"), ("theirs", "other"), ("mine", "other")]:
    expect(404, "POST", f"/networks/{network}/connect", {"Container": container})
    expect(404, "POST", f"/networks/{network}/disconnect", {"Container": container, "Force": True})
for path in ["/containers/json?all=1", "/volumes", "/networks", "/system/df", f"/events?since=0&until={time.time():.0f}"]:
    data = expect(200, "GET", path)
    assert b"theirs" not in data and b'"/other"' not in data and b'"other"' not in data, (path, data)
for kind in ["containers", "volumes", "networks"]:
    expect(200, "POST", f"/{kind}/prune")

# Bodies that one reader may take for one thing and another for something else.
for body, wanted in [
    (b'{"Image":"busybox","Cmd":["true"],"HostConfig":{"Privileged":false},"HostConfig":{"Privileged":true}}', 400),
    (b'{"Image":"busybox","Cmd":["true"],"HostConfig":{"Privileged":true,"Privileged":false}}', 400),
    (b'{"Image":"busybox","Cmd":["true"]}{"HostConfig":{"Privileged":true}}', 400), (b'\xef\xbb\xbf{"Image":"busybox","Cmd":["true"]}', 400),
    (b'{"Image":"busybox","Cmd":["true"],"HostConfig":{"Priv\\u0069leged":true}}', 403), (b'{"Image":"busybox","Cmd":["true"],"HostConfig":{"Privileged":1}}', 400),
    (b'{"Image":"busybox","Cmd":["true"],"Name":"' + b"x" * (5 << 20) + b'","HostConfig":{"Privileged":true}}', 413),
]:
    expect(wanted, "POST", "/containers/create", body)
assert len(json.loads(ask("GET", "/containers/json?all=1", token=ADMIN)[1])) == made, "something was made"
for host in [b'"hostconfig":{"Privileged":true}', b'"HostConfig":{"privileged":true,"PRIVILEGED":true}', b'"HostConfig":{"binds":["/:/x"]}']:
    # Names are read as they are written, and others are no names: what is made has none of it.
    made = json.loads(expect(201, "POST", "/containers/create", b'{"Image":"busybox","Cmd":["true"],' + host + b"}"))["Id"]
    settings = json.loads(expect(200, "GET", f"/containers/{made}/json"))["HostConfig"]
    assert not settings["Privileged"] and not settings["Binds"], settings

for path in ["/containers/other/json", "/volumes/theirs", "/networks/theirs"]:
    assert ask("GET", path, token=ADMIN)[0] == 200, path
assert json.loads(ask("GET", "/containers/other/json", token=ADMIN)[1])["State"]["Running"]
print("nothing was given")
