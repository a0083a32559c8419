import Cgroups
import Glibc
import Kernel
import OCISpec

extension Verb {
    static let delete = Verb(
        name: "delete", usage: "[command options] <container-id>", summary: "remove what a container leaves",
        flags: { [Flag("force", "f", help: "kill the container if it runs; no error if there is none")] }
    ) { call in
        try call.arguments.require("delete", atLeast: 1, atMost: 1)
        let id = try call.containerID()
        let force = call.arguments.has("force")
        if force && !File.exists(call.store.directory(id)) { return 0 }
        let lock: StateLock
        do {
            lock = try call.store.lock(id)
        } catch {
            // Another `delete` was first.
            if force && !File.exists(call.store.directory(id)) { return 0 }
            throw error
        }
        guard let record = try call.store.read(id) else {
            // Cut off before anything but the directory was made.
            try call.store.remove(id)
            return 0
        }
        let status = try call.store.status(record)
        switch status {
        case .stopped: break
        case .created: try call.store.killAndWait(record)
        default:
            guard force else {
                throw RuntimeError("cannot delete container \(id) that is not stopped: \(status.rawValue)")
            }
            try call.store.killAndWait(record)
        }
        failpoint("runtime.after_kill")
        // What was cut off in the middle has cgroups, and perhaps a process, that no record tells of.
        if record.pid == 0 { try record.cgroup.manager.kill() }
        try call.store.destroy(record, log: call.log)
        _ = consume lock
        return 0
    }
}
