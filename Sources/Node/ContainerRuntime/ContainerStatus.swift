import Cgroups
import Glibc
import JSON
import Kernel
import OCISpec

extension StateStore {
    /// What a container is doing, found out from the kernel each time.
    func status(_ record: ContainerRecord) throws -> RuntimeState.Status {
        guard record.pid != 0 else { return isLocked(record.id) ? .creating : .stopped }
        guard let stat = try Proc.stat(record.pid), stat.startTime == record.startTime, !stat.hasEnded else {
            return .stopped
        }
        if try waitsForStart(record.id) { return .created }
        return try record.cgroup.manager.isFrozen() ? .paused : .running
    }

    /// Whether the container's process still listens for its start. A `start` that was killed may have left the socket's
    /// name behind, so it is asked for in a way that no listener takes: who is there is of another type.
    private func waitsForStart(_ id: ContainerID) throws -> Bool {
        guard File.exists(startSocket(id)) else { return false }
        do throws(KernelError) {
            _ = try UnixSocket.connect(startSocket(id), kind: .stream)
            return false
        } catch {
            if error.errno == EPROTOTYPE { return true }
            // Of ours, which say nothing of the container.
            if [EMFILE, ENFILE, ENOMEM, ENOBUFS].contains(error.errno) { throw error }
            return false
        }
    }

    /// A descriptor of the container's first process.
    ///
    /// - Throws: `RuntimeError.notRunning` when it has ended, also when another process has its number by now.
    func openProcess(_ record: ContainerRecord) throws -> OwnedFD {
        guard record.pid != 0, let process = try Proc.open(record.pid, startedAt: record.startTime) else {
            throw RuntimeError.notRunning
        }
        return process
    }
}

extension StateStore {
    /// Who made a container: `root`, or a number.
    func owner(_ id: ContainerID) -> String {
        var info = stat()
        guard stat(directory(id), &info) == 0 else { return "" }
        return info.st_uid == 0 ? "root" : String(info.st_uid)
    }
}

extension ContainerRecord {
    /// What `state` and `list` show: the specification's state and what runc adds.
    func shown(_ status: RuntimeState.Status, owner: String) -> JSONObject {
        var object = JSONObject()
        for member in state(status).json.objectValue?.members ?? [] where member.key != "annotations" {
            object[member.key] = member.value
        }
        object["rootfs"] = .string(rootfs)
        object["created"] = .string(created.description)
        object["owner"] = .string(owner)
        if !annotations.isEmpty {
            var table = JSONObject()
            for key in annotations.keys.sorted() { table[key] = annotations[key].map { .string($0) } }
            object["annotations"] = .object(table)
        }
        return object
    }
}
