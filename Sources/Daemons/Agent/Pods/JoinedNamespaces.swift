import AgentCore
import CKernel
import Glibc
import Kernel
import Model
import OCISpec
import Wire

/// Namespaces of containers that run on this node, held open until the one that shares them has been made.
struct JoinedNamespaces: Sendable {
    /// For the runtime, which opens them while this process holds them: `/proc/<agent>/fd/<number>`.
    private(set) var paths: [NamespaceSpec.Kind: String] = [:]
    /// Where the files of the container are whose network it is.
    private(set) var networkFiles: String?
    /// The mount namespace of the container whose IPC it is.
    private(set) var mountNamespace: SharedFD?
    private var files: [SharedFD] = []

    init() {}

    /// Opens all that a pod shares. Blocks.
    ///
    /// - Parameter parent: the cgroup that holds those of all tasks.
    /// - Throws: `ExecutorFailure` when one of the containers does not run here.
    init(_ assignment: TaskAssignment, _ table: TaskTable, _ agent: AgentPaths, parent: String) throws {
        let shared = assignment.pod.namespaces
        let wanted: [(NamespaceSpec.Kind, String, Namespaces.Source)] = [
            (.pid, "pid", shared.pid), (.ipc, "ipc", shared.ipc), (.uts, "uts", shared.uts),
            (.cgroup, "cgroup", shared.cgroup), (.network, "net", shared.network),
        ]
        let records = shared.containers.isEmpty ? [] : table.all
        for case (let kind, let name, .container(let text)) in wanted {
            let process = try Self.firstProcess(of: ContainerID(text), kind, records, parent: parent)
            let file = try process.open("ns/\(name)")
            paths[kind] = "/proc/\(getpid())/fd/\(file.raw)"
            files.append(file)
            if kind == .ipc { mountNamespace = try process.open("ns/mnt") }
        }
        if case .container(let text) = shared.network { networkFiles = Self.files(of: text, records, agent) }
    }

    /// Those of the container that has the network, however many share it one from another.
    private static func files(of container: String, _ records: [TaskRecord], _ agent: AgentPaths) -> String? {
        var next = container
        for _ in 0..<64 {
            guard let record = records.first(where: { $0.container.id.text == next && !$0.removed }) else { return nil }
            guard case .container(let further) = record.assignment.pod.namespaces.network else {
                return agent.task(record.assignment.task).files
            }
            next = further
        }
        return nil
    }

    private static func firstProcess(
        of container: ContainerID, _ kind: NamespaceSpec.Kind, _ records: [TaskRecord], parent: String
    ) throws -> ProcessDirectory {
        func failure(_ reason: String) -> ExecutorFailure {
            ExecutorFailure(
                "cannot share the \(kind.rawValue) namespace of container \(container.text.prefix(12)): \(reason)")
        }
        guard let record = records.first(where: { $0.container.id == container && !$0.removed }) else {
            throw failure("it is not on this node")
        }
        guard record.isLive, record.container.pid > 0 else {
            throw failure("the container \(record.assignment.instanceName) is not running; start it first")
        }
        do {
            let process = try ProcessDirectory(record.container.pid)
            // Held open, the directory is this process's and no later one's of its number: it is the container's, or not.
            guard try process.isIn(cgroup: "/\(parent)/\(record.assignment.task)") else {
                throw failure("the container \(record.assignment.instanceName) has ended; start it first")
            }
            return process
        } catch let error as KernelError where error.errno == ENOENT || error.errno == ESRCH {
            throw failure("the container \(record.assignment.instanceName) has ended; start it first")
        }
    }
}

/// A process as procfs shows it. When it has ended, everything in it fails, whoever has its number then.
private struct ProcessDirectory {
    private let directory: SharedFD
    private let pid: Int

    init(_ pid: Int) throws(KernelError) {
        self.pid = pid
        directory = SharedFD(try File.open("/proc/\(pid)", Int32(CK_O_PATH) | O_DIRECTORY))
    }

    func open(_ name: String) throws(KernelError) -> SharedFD {
        SharedFD(
            OwnedFD(
                adopting: try systemCall("open", "/proc/\(pid)/\(name)") {
                    ck_openat(directory.raw, name, O_RDONLY | O_CLOEXEC, 0)
                }))
    }

    func isIn(cgroup: String) throws(KernelError) -> Bool {
        let file = try open("cgroup")
        let bytes = try withExtendedLifetime(file) { () throws(KernelError) in
            try Descriptor.readAll(file.raw, limit: 1 << 16)
        }
        let text = String(decoding: bytes, as: UTF8.self)
        return text.split(separator: "\n").contains { line in
            line.hasSuffix(cgroup) || line.contains(cgroup + "/")
        }
    }
}
