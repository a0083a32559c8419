"""Asks $1 (host:port, TLS) with the token $2, which may only look, for what it may not do, in all the ways in which a path can
be written. Nothing may happen to the container `victim`."""
import http.client, json, ssl, sys

HOST, TOKEN = sys.argv[1:]
context = ssl._create_unverified_context()


def ask(method, path, body=None, headers=None, token=TOKEN):
    client = http.client.HTTPSConnection(HOST, context=context, timeout=30)
    client.putrequest(method, path, skip_host=False)
    for name, value in ({"Authorization": f"Bearer {token}"} if token else {}).items() | (headers or {}).items():
        client.putheader(name, value)
    client.putheader("Content-Length", str(len(body or b"")))
    client.endheaders(body)
    answer = client.getresponse()
    data = answer.read()
    client.close()
    return answer.status, data


assert ask("GET", "/v1.41/containers/victim/json")[0] == 200
assert ask("GET", "/_ping")[0] == 200
for token in ["", "nonsense", TOKEN + "x"]:
    status, data = ask("GET", "/v1.41/containers/json", token=token)
    assert status == 401 and json.loads(data)["message"], (token, status, data)
JSON = {"Content-Type": "application/json"}
for method, path, body in [
    ("POST", "/v1.41/containers/create", b'{"Image":"busybox"}'), ("DELETE", "/v1.41/containers/victim?force=1", None),
    ("POST", "/v1.41/containers/victim/exec", b'{"Cmd":["true"]}'), ("POST", "/v1.41/containers/victim/attach?stream=1", None),
    ("PUT", "/v1.41/containers/victim/archive?path=/", b""), ("GET", "/v1.41/containers/victim/archive?path=/etc/passwd", None),
    ("GET", "/v1.41/containers/victim/export", None), ("POST", "/v1.41/containers/victim/rename?name=x", None), ("POST", "/v1.41/commit?container=victim", None),
    ("POST", "/v1.41/images/create?fromImage=x", None), ("DELETE", "/v1.41/images/busybox", None), ("POST", "/v1.41/volumes/create", b'{"Name":"x"}'),
    ("POST", "/v1.41/networks/create", b'{"Name":"x"}'), ("POST", "/v1.41/containers/prune", None), ("POST", "/v1.41/images/prune", None),
    ("POST", "/v1.41/images/load", b""), ("POST", "/v1.41/containers/victim/update", b"{}"),
]:
    status, data = ask(method, path, body, JSON)
    assert status == 403 and json.loads(data)["message"], (method, path, status, data)
# The path that is judged is the path that is carried out.
for path in ["/v1.41/containers/victim/kill", "/containers/victim/kill", "//v1.41/containers/victim/kill", "/v1.41//containers/victim/kill",
             "/v1.41/containers/victim%2fkill", "/v1.41/containers/victim/%6bill", "/v1.41/./containers/victim/kill", "/v1.41/info/../containers/victim/kill",
             "/v1.41/containers/victim/kill/", "/v1.41/containers/victim/kill?x=/json", "/v1.41/containers/victim/kill#/json", "/v1.41/containers/victim/kill;json",
             "/_ping/../containers/victim/kill", f"https://{HOST}/v1.41/containers/victim/kill"]:
    for more in [{}, {"X-HTTP-Method-Override": "GET"}, {"X-Original-URL": "/_ping"}, {"X-Rewrite-URL": "/_ping"}]:
        status, data = ask("POST", path, None, more)
        assert 400 <= status < 500, (path, more, status, data)
    status, data = ask("GET", path, None, {"X-HTTP-Method-Override": "POST"})
    assert 400 <= status < 500, (path, status, data)
status, data = ask("GET", "/v1.41/containers/victim/json")
assert json.loads(data)["State"]["Running"], data
print("nothing was done")
