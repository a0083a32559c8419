"""The daemons that are measured, ours and the others', each with places of its own, and machines to run them on."""
import contextlib, glob, os, signal, subprocess, time
from bench_measure import ENV, MARTLET, ROOT, ROOTFS, WORK, in_memory, run, until


def beginning(*command, **options):
    """Starts a daemon. It does not get the terminal's ctrl-c, so that it is there for the cleaning up, and it ends with us."""
    return subprocess.Popen(["setpriv", "--pdeathsig", "TERM", *command], env=ENV, stdin=subprocess.DEVNULL, start_new_session=True, **options)


def end(process):
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(timeout=60)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextlib.contextmanager
def one_node():
    """A cluster of this machine alone."""
    place = ["--data-dir", f"{WORK}/data", "--run-dir", in_memory(f"{WORK}/run")]
    try:
        run(MARTLET, "up", "--detach", *place, "--bridge", "mbench0", "--subnet", "10.221.0.0/16", "--cgroup-parent", "martlet-bench")
        run(MARTLET, "image", "import", "--name", "busybox", ROOTFS)
        yield
    finally:
        run(MARTLET, "down", "--all", *place)


class Docker:
    """A dockerd of our own, and its command line. containerd is started by dockerd itself."""

    def __init__(self, name="docker", enter=(), bridge="10.222.0.1/16"):
        # A machine's mounts are its own.
        state = f"{WORK}/{name}-run" if enter else in_memory(f"{WORK}/{name}-run")
        self.data, self.state, self.socket, self.parent = f"{WORK}/{name}", state, f"{WORK}/{name}.sock", f"martlet-bench-{name}"
        self.log = open(f"{WORK}/{name}.log", "w")
        self.daemon = beginning(*enter, "dockerd", "--data-root", self.data, "--exec-root", self.state, "-H", f"unix://{self.socket}",
                                "-p", f"{WORK}/{name}.pid", "--storage-driver", "overlay2", "--bip", bridge,
                                "--cgroup-parent", f"/{self.parent}", stdout=self.log, stderr=self.log)

    def __call__(self, *command, check=True):
        return run("docker", "-H", f"unix://{self.socket}", *command, check=check)

    def wait(self):
        """Until it answers."""
        for _ in range(600):
            if self("version", check=False).returncode == 0:
                return self
            if self.daemon.poll() is not None:
                break
            time.sleep(0.05)
        raise RuntimeError(f"dockerd did not start: {open(self.log.name).read()[-500:]}")

    def containers(self, service):
        return len(self("ps", "-q", "--filter", f"label=com.docker.swarm.service.name={service}").stdout.split())

    def processes(self):
        """Process ids of dockerd and containerd."""
        pids = [int(p) for p in run("pgrep", "-f", f"{self.data}|{self.state}/", check=False).stdout.split()]
        names = {pid: open(f"/proc/{pid}/comm").read().strip() for pid in pids if os.path.exists(f"/proc/{pid}/comm")}
        return [pid for pid, name in names.items() if name in ("dockerd", "containerd")]

    def end(self):
        if self.daemon.poll() is None:
            self("swarm", "leave", "--force", check=False)
            run("sh", "-c", f"docker -H unix://{self.socket} ps -aq | xargs -r docker -H unix://{self.socket} rm -f", check=False)
        end(self.daemon)
        # docker leaves the parent of its containers' cgroups.
        for folder in glob.glob(f"/sys/fs/cgroup/{self.parent}") + glob.glob(f"/sys/fs/cgroup/*/{self.parent}"):
            with contextlib.suppress(OSError):
                os.rmdir(folder)


@contextlib.contextmanager
def dockerd(**options):
    """A daemon that runs; what DOCKER_HOST names unless it has a name."""
    docker = Docker(**options)
    try:
        yield docker.wait()
    finally:
        docker.end()


@contextlib.contextmanager
def registry(data, enter=()):
    """Debian's docker-registry on 127.0.0.1:5000 of these namespaces, or of those of `enter`."""
    path = f"{WORK}/registry-{len(enter)}.yml"
    with open(path, "w") as file:
        file.write(f"version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\nstorage: {{filesystem: {{rootdirectory: {data}}}}}\n"
                   "http: {addr: '127.0.0.1:5000'}\n")
    with open(f"{path}.log", "w") as log:
        daemon = beginning(*enter, "docker-registry", "serve", path, stdout=log, stderr=log)
    try:
        answers = lambda: run(*enter, "curl", "-sf", "http://127.0.0.1:5000/v2/", check=False).returncode == 0
        until("the registry answers", answers, seconds=30)
        yield "127.0.0.1:5000"
    finally:
        end(daemon)


class Machine:
    """A machine as far as the network and mounts go: namespaces that a sleeping process keeps, with a link to the switch,
    which is a bridge in our own network namespace."""
    switch = "mbench-switch"

    def __init__(self, number):
        self.name, self.address = f"n{number}", f"10.98.0.{number}"
        self.keeper = beginning("unshare", "--mount", "--net", "--propagation", "private", f"{ROOT}/scripts/private.sh",
                                "sh", "-c", "echo; exec sleep infinity", stdout=subprocess.PIPE)
        self.keeper.stdout.readline()
        self.enter = ["nsenter", "-t", str(self.keeper.pid), "-m", "-n"]
        self.place = ["--data-dir", f"{WORK}/{self.name}/data", "--run-dir", f"{WORK}/{self.name}/run"]
        run("ip", "link", "add", f"mbench-{number}", "type", "veth", "peer", "name", "eth0", "netns", str(self.keeper.pid))
        run("ip", "link", "set", f"mbench-{number}", "master", self.switch, "up")
        self("ip", "address", "add", f"{self.address}/24", "dev", "eth0")
        self("ip", "link", "set", "eth0", "up")

    def __call__(self, *command, check=True):
        return run(*self.enter, *command, check=check)

    def join(self, token):
        """Starts the agent here; it becomes a node of the cluster whose master `master()` is."""
        number = int(self.name[1:])
        self(MARTLET, "agent", "--detach", *self.place, "--node-name", self.name, "--node-label", f"bench={self.name}",
             "--bridge", "mbench0", "--subnet", f"10.{230 + number}.0.0/16", "--cgroup-parent", f"martlet-bench-{self.name}",
             "--master", "https://10.98.0.254:7070", "--join", token)

    def leave(self):
        """Ends the agent, with all that it had."""
        if os.path.exists(f"{WORK}/{self.name}"):
            self(MARTLET, "down", "--all", *self.place, check=False)

    def end(self):
        self.leave()
        end(self.keeper)


@contextlib.contextmanager
def machines(count):
    """Machines on a switch, on which we are 10.98.0.254."""
    made = []
    try:
        run("ip", "link", "add", Machine.switch, "type", "bridge")
        run("ip", "address", "add", "10.98.0.254/24", "dev", Machine.switch)
        run("ip", "link", "set", Machine.switch, "up")
        for number in range(1, count + 1):
            made.append(Machine(number))
        yield made
    finally:
        for machine in made:
            machine.end()
        run("ip", "link", "delete", Machine.switch, check=False)


@contextlib.contextmanager
def master():
    """A master that machines can join."""
    place = ["--data-dir", f"{WORK}/data", "--run-dir", f"{WORK}/run"]
    try:
        run(MARTLET, "master", "--detach", *place, "--advertise", "10.98.0.254")
        yield
    finally:
        run(MARTLET, "down", "--all", *place)
