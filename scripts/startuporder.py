"""Lists the functions that calls of the runtime execute, in the order of the first time, into scripts/startup.order."""
import atexit, bisect, os
from bench_measure import ROOT, WORK, in_memory, run
from bench_runtime import OURS, bundle, changed, install


def functions():
    """Addresses and names, in order."""
    lines = [line.split(" ", 2) for line in run("nm", "-n", "--defined-only", OURS).stdout.splitlines()]
    return [(int(address, 16), name) for address, kind, name in lines if kind in "tTwW"]


install()
counter = f"{WORK}/instructions"
run("clang", "-O2", "-o", counter, f"{ROOT}/scripts/instructions.c")
runtime = [OURS, "--root", f"{in_memory(f'{WORK}/state')}/ours"]
asleep = changed("asleep", lambda spec: spec["process"].update(args=["sleep", "1000"]))


def call(*words):
    """The container keeps the streams that it is created with: a pipe would not end."""
    run("sh", "-c", '"$@" >/dev/null 2>&1', "sh", *words)


# `create` is not among them: its process would go on after whoever steps through it. `run` does the same and more.
first, second = f"order-{os.getpid()}-1", f"order-{os.getpid()}-2"
call(*runtime, "create", "-b", asleep, first)
atexit.register(run, *runtime, "delete", "--force", first, check=False)
calls = [("run", "-b", bundle(), second), ("start", first), ("state", first), ("delete", "--force", first)]
known = functions()
starts = [address for address, _ in known]
order = {}
for number, words in enumerate(calls):
    call(counter, "-l", f"{WORK}/{number}", *runtime, *words)
    for line in open(f"{WORK}/{number}"):
        place = bisect.bisect_right(starts, int(line, 16)) - 1
        order.setdefault(known[place][1])
with open(f"{ROOT}/scripts/startup.order", "w") as file:
    file.writelines(f"{name}\n" for name in order)
print(f"{len(order)} functions are in scripts/startup.order")
