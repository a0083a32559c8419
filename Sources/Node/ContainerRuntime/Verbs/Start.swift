import CStage
import Cgroups
import Glibc
import Kernel
import OCISpec

extension Verb {
    static let start = Verb(
        name: "start", usage: "<container-id>", summary: "execute the program of a created container", flags: { [] }
    ) { call in
        try call.arguments.require("start", atLeast: 1, atMost: 1)
        let id = try call.containerID()
        let lock = try call.store.lock(id)
        let record = try call.store.require(id)
        switch try call.store.status(record) {
        case .created:
            // It would wait in its group for ever, and we for it, with the lock that `resume` needs.
            guard try !record.cgroup.manager.isFrozen() else {
                throw RuntimeError("cannot start a container that is paused: resume it first")
            }
        case .stopped: throw RuntimeError("cannot start a container that has stopped")
        case .creating: throw RuntimeError("cannot start a container that is being created")
        case .running, .paused: throw RuntimeError("cannot start an already running container")
        }
        let relay = try NotifySocket(call.store, id)?.listen()
        let process = try relay.map { _ in SharedFD(try call.store.openProcess(record)) }
        let path = call.store.startSocket(id)
        let connection = try withContext("the container's process does not wait for its start any more") {
            try UnixSocket.connect(path, kind: .packets)
        }
        failpoint("runtime.starting")
        try File.removeFile(path)
        failpoint("runtime.started")
        do {
            if let message = try failure(of: Channel(socket: connection.raw), record, call.store) {
                throw RuntimeError(try ProcessPlan.explain(message, limits: record.process.rlimits))
            }
        } catch {
            // It has said its last word and ends; who looks next shall see it stopped.
            try? call.store.killAndWait(record)
            throw error
        }
        do {
            try Hooks.run(record.poststart, .poststart, state: record.state(.running))
        } catch {
            try? call.store.killAndWait(record)
            throw error
        }
        _ = consume lock
        if let relay, let process { try relay.wait(main: record.pid, process: process.raw, log: call.log) }
        return 0
    }

    /// Accompanies a created process to its program.
    ///
    /// - Returns: what it reports as its failure; nil when the program is being executed.
    private static func failure(
        of channel: Channel, _ record: ContainerRecord, _ store: StateStore
    ) throws -> Channel.Message? {
        guard let message = try channel.receive() else { return nil }
        guard message.kind == CS_LISTENER.rawValue, let listener = record.seccompListener else { return message }
        let process = try store.openProcess(record)
        let failure = try listener.serve(
            message, on: channel, pidfd: process.raw, pid: record.pid, state: record.state(.created))
        return try failure ?? channel.receive()
    }
}
