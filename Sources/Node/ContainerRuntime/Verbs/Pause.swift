import Cgroups
import OCISpec

extension Verb {
    static let pause = Verb(
        name: "pause", usage: "<container-id>", summary: "suspend all processes of a container", flags: { [] }
    ) { call in
        try call.arguments.require("pause", atLeast: 1, atMost: 1)
        let id = try call.containerID()
        let lock = try call.store.lock(id)
        let record = try call.store.require(id)
        try record.cgroup.require("pause it")
        switch try call.store.status(record) {
        case .running, .created: try record.cgroup.manager.freeze()
        case .paused: throw RuntimeError("container already paused")
        default: throw RuntimeError.notRunning
        }
        _ = consume lock
        return 0
    }

    static let resume = Verb(
        name: "resume", usage: "<container-id>", summary: "resume the processes of a paused container", flags: { [] }
    ) { call in
        try call.arguments.require("resume", atLeast: 1, atMost: 1)
        let id = try call.containerID()
        let lock = try call.store.lock(id)
        let record = try call.store.require(id)
        // A created container that was paused is shown as created: its freezer tells.
        guard try call.store.status(record) == .paused || record.cgroup.manager.isFrozen() else {
            throw RuntimeError("container not paused")
        }
        try record.cgroup.manager.thaw()
        _ = consume lock
        return 0
    }
}
