"""What a cluster of several machines adds: pulls, content between nodes, joining, and a service over three nodes."""
import json, os, shutil, statistics, time
from bench_daemons import Docker, dockerd, machines, master, one_node, registry
from bench_image import fill
from bench_measure import ENV, MARTLET, ROOTFS, WORK, pairs, run, timed, until


def clean(command):
    """Milliseconds of a command that begins with nothing of ours waiting to be written."""
    os.sync()
    return timed(command)


class Image:
    """The 500 MB image in a registry's folder; filled once for all parts."""
    folder, name, made = f"{WORK}/registry", "bench/large:1", None

    @classmethod
    def fill(cls, address):
        if cls.made is None:
            cls.made = fill(address, cls.name)
            blobs, size, unpacked = cls.made
            print(f"image: {len(blobs)} layers, {unpacked / 1e6:.0f} MB of tars, half of which compresses, {size / 1e6:.0f} MB as gzip in the registry")
        return cls.made


def pull():
    with one_node(), registry(Image.folder) as address:
        _, size, _ = Image.fill(address)
        name = f"{address}/{Image.name}"

        def ours():
            took = clean([MARTLET, "pull", "--quiet", name])
            run(MARTLET, "image", "rm", name)
            return took

        def skopeo():
            took = clean(["skopeo", "--insecure-policy", "copy", "--src-tls-verify=false", f"docker://{name}", f"dir:{WORK}/copy"])
            shutil.rmtree(f"{WORK}/copy")
            return took

        pairs("pull of 500 MB", ours, skopeo, "skopeo copy to dir:", count=5, size=size,
              why="skopeo checks digests and writes the blobs as they come, without unpacking them")
        with dockerd() as docker:
            def theirs():
                took = clean(["docker", "pull", "--quiet", name])
                docker("rmi", name)
                return took

            pairs("pull of 500 MB", ours, theirs, "docker pull", count=5, size=size, why="both unpack; ours is durable on the disk when it returns")


def joined(nodes):
    """Lets nodes join, and waits until they are ready."""
    token = run(MARTLET, "token", "create", "--quiet").stdout.strip()
    for node in nodes:
        node.join(token)
    until("the nodes are ready", lambda: {node.name for node in nodes} <= set(ready()))


def left(node):
    """Ends a node's agent with all that it has, and makes the master forget it, which it does once it has noticed."""
    node.leave()
    until("the node is gone", lambda: run(MARTLET, "node", "rm", "--force", node.name, check=False).returncode == 0)


def ready():
    lines = run(MARTLET, "node", "ls", "--format", "{{.Name}} {{.Status}}").stdout.splitlines()
    return [line.split()[0] for line in lines if line.endswith(" ready")]


def copies(image):
    """On how many nodes an image is."""
    return len(json.loads(run(MARTLET, "image", "inspect", image).stdout)[0]["image"]["nodes"])


def peer():
    if Image.made is None:
        with registry(Image.folder) as address:
            Image.fill(address)
    blobs, size, _ = Image.made
    with machines(3) as (first, second, last), master():
        joined([first, second])
        with registry(Image.folder, enter=first.enter) as address:
            name = f"{address}/{Image.name}"
            run(MARTLET, "pull", "--quiet", "--node", first.name, name)
        until("the image has its second copy", lambda: copies(name) == 2)
        start = [MARTLET, "run", "--rm", "--constraint", f"bench=={last.name}", name]

        def ours():
            joined([last])
            cold = clean(start)
            took = cold - clean(start)
            # Its key opens the same route for curl, which is asked next.
            with open(f"{WORK}/{last.name}/data/identity/credentials.json") as file:
                kept = json.load(file)
            for part in ("certificate", "key"):
                with open(f"{WORK}/curl.{part}", "w", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
                    file.write(kept[part])
            return took

        def curl():
            folder = f"{WORK}/curl"
            os.makedirs(folder)
            wanted = [word for blob in blobs
                      for word in ("-o", f"{folder}/{blob[7:]}", f"https://{first.address}:7071/node/v1/content/blobs/{blob}")]
            # A node's certificate names no address, so curl cannot check it; the keys and ciphers are the same.
            took = clean([*last.enter, "curl", "-sSfk", "--cert", f"{WORK}/curl.certificate", "--key", f"{WORK}/curl.key",
                          "--parallel", "--parallel-max", "3", *wanted])
            got = sum(os.path.getsize(f"{folder}/{blob[7:]}") for blob in blobs)
            if got != size:
                raise RuntimeError(f"curl got {got} bytes of {size}")
            shutil.rmtree(folder)
            left(last)
            return took

        pairs("image of 500 MB fetched from another node", ours, curl, "curl of its layers from there", count=5, size=size,
              why="ours: the first `martlet run` there, less a second one; checks, unpacks, makes durable. curl: the same route, to files")


def join():
    with machines(2) as (node, manager), master():
        token = run(MARTLET, "token", "create", "--quiet").stdout.strip()

        def ours():
            os.sync()
            start = time.monotonic()
            node.join(token)
            until("the node is ready", lambda: ready() == [node.name], every=0.005)
            took = (time.monotonic() - start) * 1000
            left(node)
            return took

        with dockerd(name="docker-manager", enter=manager.enter) as docker:
            docker("swarm", "init", "--advertise-addr", manager.address)
            swarm = docker("swarm", "join-token", "-q", "worker").stdout.strip()
            workers = lambda: [line.split()[0] for line in docker("node", "ls", "--format", "{{.ID}} {{.Status}} {{.ManagerStatus}}").stdout.splitlines() if line.endswith(" Ready ")]
            joins = []

            def theirs():
                os.sync()
                start = time.monotonic()
                worker = Docker(name="docker-worker", enter=node.enter)
                try:
                    worker.wait()
                    up = time.monotonic()
                    worker("swarm", "join", "--token", swarm, f"{manager.address}:2377")
                    until("the worker is ready", lambda: len(workers()) == 1, every=0.005)
                    end = time.monotonic()
                    joins.append((end - up) * 1000)
                    identity = workers()[0]
                finally:
                    worker.end()
                docker("node", "rm", "--force", identity)
                shutil.rmtree(worker.data)
                return (end - start) * 1000

            pairs("join to ready", ours, theirs, "dockerd's start and swarm join", count=15,
                  why="both from no daemon and an empty folder until the manager's list says ready")
            print(f"    of theirs, swarm join of a dockerd that runs already: {statistics.median(joins):.1f} ms")


def fanout():
    with machines(3) as nodes, master():
        joined(nodes)
        run(MARTLET, "image", "import", "--node", "n1", "--name", "busybox", ROOTFS)
        serving = lambda: json.loads(run(MARTLET, "service", "inspect", "wide").stdout)[0]["serving"]
        run(MARTLET, "service", "create", "--name", "wide", "--replicas", "3", "--strategy", "spread", "--stop-timeout", "0", "busybox", "sleep", "100000")
        until("three serve", lambda: serving() == 3)
        dockers = []
        try:
            for node in nodes:
                dockers.append(Docker(name=f"docker-{node.name}", enter=node.enter).wait())
                dockers[-1]("import", ROOTFS, "busybox:latest")
            manager = dockers[0]
            manager("swarm", "init", "--advertise-addr", nodes[0].address)
            token = manager("swarm", "join-token", "-q", "worker").stdout.strip()
            for docker in dockers[1:]:
                docker("swarm", "join", "--token", token, f"{nodes[0].address}:2377")
            until("three workers are ready", lambda: manager("node", "ls", "--format", "{{.Status}}").stdout.split() == ["Ready"] * 3)
            manager("service", "create", "--detach", "--no-resolve-image", "--name", "wide", "--replicas", "3", "--stop-grace-period", "0s",
                    "busybox", "sleep", "100000")
            running = lambda: manager("service", "ls", "--format", "{{.Replicas}}").stdout.strip().split("/")[0]
            containers = lambda: [docker.containers("wide") for docker in dockers]
            until("three run", lambda: running() == "3")

            def tasks():
                views = [view for node in nodes for view in json.loads(run(MARTLET, "node", "inspect", node.name).stdout)]
                return [view["tasks"] for view in views]

            def ours():
                start = time.monotonic()
                run(MARTLET, "service", "scale", "wide=150")
                until("150 serve", lambda: serving() == 150, seconds=300)
                took = (time.monotonic() - start) * 1000
                if sorted(tasks()) != [50, 50, 50]:
                    raise RuntimeError(f"the nodes have {tasks()} tasks instead of 50 each")
                run(MARTLET, "service", "scale", "wide=3")
                until("three serve", lambda: serving() == 3 and sum(tasks()) == 3, seconds=300)
                return took

            def theirs():
                start = time.monotonic()
                manager("service", "scale", "--detach", "wide=150")
                until("150 run", lambda: running() == "150", seconds=300, every=0.1)
                took = (time.monotonic() - start) * 1000
                manager("service", "scale", "--detach", "wide=3")
                until("three run", lambda: sum(containers()) == 3, seconds=300, every=0.1)
                return took

            pairs("service scaled from 3 to 150 on three nodes", ours, theirs, "swarm mode on three nodes", count=5,
                  why="all nodes of both share this machine's processors, so this is the work, not what three machines would take")
        finally:
            for docker in reversed(dockers):
                docker.end()
        run(MARTLET, "service", "rm", "--force", "wide")
