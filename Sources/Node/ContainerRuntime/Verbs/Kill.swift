import Cgroups
import Glibc
import Kernel
import OCISpec

extension Verb {
    static let kill = Verb(
        name: "kill", usage: "[command options] <container-id> [signal]",
        summary: "send a signal (default: SIGTERM) to the container's first process",
        flags: { [Flag("all", "a", help: "to all processes of the container")] }
    ) { call in
        try call.arguments.require("kill", atLeast: 1, atMost: 2)
        let id = try call.containerID()
        let signal = try SignalName.number(of: call.arguments.positional.dropFirst().first ?? "TERM")
        let record = try call.store.require(id)
        // Without cgroups the first process stands for all: its pid namespace ends with it.
        if call.arguments.has("all"), !record.cgroup.isAbsent {
            // Also when the first process has ended: others may have outlived it.
            try record.cgroup.manager.signalAll(signal)
            return 0
        }
        let process = ChildProcess(pid: record.pid, pidfd: try call.store.openProcess(record))
        try process.signal(signal)
        if signal == SIGKILL {
            // A frozen process dies only when it is thawed (cgroup v1); without a pid namespace of its own the others
            // would live on.
            let manager = record.cgroup.manager
            if !record.ownsPids { try manager.kill() } else if try manager.isFrozen() { try manager.kill() }
        }
        return 0
    }
}
