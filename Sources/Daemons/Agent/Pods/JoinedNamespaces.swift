import AgentCore
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
            try Self.joining(ContainerID(text), kind, records) { record throws(KernelError) in
                let process = try ProcessDirectory(record, parent: parent)
                let file = try process.open("ns/\(name)")
                paths[kind] = Self.path(file)
                files.append(file)
                if kind == .ipc { mountNamespace = try process.open("ns/mnt") }
            }
        }
        if case .container(let text) = shared.network {
            networkFiles = Self.networkOwner(text, records).map { agent.task($0.assignment.task).files }
        }
    }

    /// By which other processes reach what this one holds open.
    static func path(_ file: SharedFD) -> String { "/proc/\(getpid())/fd/\(file.raw)" }

    /// The task that has the network which a container shares, however many share it one from another.
    static func networkOwner(_ container: String, _ records: [TaskRecord]) -> TaskRecord? {
        var next = container
        for _ in 0..<64 {
            guard let record = records.first(where: { $0.container.id.text == next && !$0.removed }) else { return nil }
            guard case .container(let further) = record.assignment.pod.namespaces.network else { return record }
            next = further
        }
        return nil
    }

    /// Does something with a container that runs here.
    private static func joining(
        _ container: ContainerID, _ kind: NamespaceSpec.Kind, _ records: [TaskRecord],
        _ body: (TaskRecord) throws(KernelError) -> Void
    ) throws {
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
        do throws(KernelError) {
            try body(record)
        } catch {
            throw failure(
                error.isOfEnded
                    ? "the container \(record.assignment.instanceName) has ended; start it first" : error.description)
        }
    }
}
