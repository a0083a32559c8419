import CKernel
import CStage
import Glibc
import Kernel
import OCISpec

/// Comparing namespaces by their files.
enum NamespaceFiles {
    /// Whether two paths name the same namespace; false when one cannot be read.
    static func same(_ one: String, _ other: String) -> Bool {
        var first = stat()
        var second = stat()
        return stat(one, &first) == 0 && stat(other, &second) == 0 && first.st_ino == second.st_ino
            && first.st_dev == second.st_dev
    }
}

/// What the container's process joins and what is made for it.
struct NamespacePlan {
    /// CLONE_NEW* of those that clone3(2) makes, or the process itself.
    var made: UInt64 = 0
    var makesCgroup = false
    /// Joins a cgroup namespace that is not the runtime's.
    var joinsCgroup = false
    /// What is written to timens_offsets of a new time namespace; nil without one.
    var timeOffsets: String?
    var pid: SharedFD?
    var user: SharedFD?
    var joins: [(file: SharedFD, type: Int32)] = []
    /// Of a new user namespace.
    var idMap = IDMap(uids: [], gids: [])

    /// In a user namespace that is not the runtime's.
    var changesUser: Bool { user != nil || makesUser }
    var makesUser: Bool { made & UInt64(CK_CLONE_NEWUSER) != 0 }
    /// The container's view of the cgroups begins at its own group, or at that of the namespace it joins.
    var ownsCgroup: Bool { makesCgroup || joinsCgroup }
    var makesNetwork: Bool { made & UInt64(CK_CLONE_NEWNET) != 0 }
    var makesPids: Bool { made & UInt64(CK_CLONE_NEWPID) != 0 }
    /// CLONE_NEW* of those that the process makes itself, while the runtime makes its groups: they take the kernel
    /// longest, and belong to the same user namespace that way too.
    private var madeInside: UInt64 {
        changesUser || pid != nil ? 0 : made & UInt64(CK_CLONE_NEWNET | CK_CLONE_NEWIPC)
    }

    private static func flag(_ kind: NamespaceSpec.Kind) -> Int {
        switch kind {
        case .pid: CK_CLONE_NEWPID
        case .network: CK_CLONE_NEWNET
        case .mount: CK_CLONE_NEWNS
        case .ipc: CK_CLONE_NEWIPC
        case .uts: CK_CLONE_NEWUTS
        case .user: CK_CLONE_NEWUSER
        case .cgroup: CK_CLONE_NEWCGROUP
        case .time: CK_CLONE_NEWTIME
        }
    }

    init() {}

    /// Opens what is joined by path.
    init(_ linux: LinuxSpec) throws {
        for (index, namespace) in linux.namespaces.enumerated() {
            let flag = Self.flag(namespace.type)
            if let path = namespace.path {
                let file = try withContext("config.json: linux.namespaces[\(index)].path") {
                    SharedFD(try File.open(path, O_RDONLY))
                }
                switch namespace.type {
                case .pid: pid = file
                // Joining the namespace one is in already is an error to the kernel, and nothing to us.
                case .user: if !NamespaceFiles.same(path, "/proc/self/ns/user") { user = file }
                default:
                    if namespace.type == .cgroup { joinsCgroup = !NamespaceFiles.same(path, "/proc/self/ns/cgroup") }
                    joins.append((file, Int32(flag)))
                }
                continue
            }
            switch namespace.type {
            case .cgroup: makesCgroup = true
            case .time: timeOffsets = Self.offsets(linux.timeOffsets)
            default: made |= UInt64(flag)
            }
        }
        idMap = IDMap(uids: linux.uidMappings, gids: linux.gidMappings)
    }

    /// For a process that enters a running container: everything the container has that is not the host's, through one
    /// descriptor of its first process.
    init(entering process: SharedFD, _ kinds: [NamespaceSpec.Kind]) {
        var flags: Int32 = 0
        for kind in kinds {
            switch kind {
            case .pid: pid = process
            case .user: user = process
            default: flags |= Int32(Self.flag(kind))
            }
        }
        if flags != 0 { joins = [(process, flags)] }
    }

    private static func offsets(_ offsets: [String: TimeOffset]) -> String {
        offsets.keys.sorted().map { clock in
            let offset = offsets[clock] ?? TimeOffset(seconds: 0, nanoseconds: 0)
            return "\(clock) \(offset.seconds) \(offset.nanoseconds)\n"
        }.joined()
    }
}

/// A process that was just made by `Stage.enter`.
struct EnteredProcess: ~Copyable {
    let pid: pid_t
    let pidfd: OwnedFD
}

extension NamespacePlan {
    /// Makes the process: returns nil in the child, which goes on in its namespaces with the far end of `sockets`.
    ///
    /// - Parameter cgroup: a cgroup v2 directory to start in, or -1.
    func enter(_ sockets: borrowing SocketPair, cgroup: Int32) throws -> EnteredProcess? {
        var entries = joins.map { cs_join(fd: $0.file.raw, type: $0.type) }
        var pidfd: Int32 = -1
        var step: UnsafePointer<CChar>?
        let entryCount = Int32(entries.count)
        let pid = entries.withUnsafeMutableBufferPointer { joins in
            withOffsets { offsets in
                var entry = cs_entry()
                entry.new_namespaces = made & ~madeInside
                entry.pid_namespace = self.pid?.raw ?? -1
                entry.user_namespace = user?.raw ?? -1
                entry.joins = UnsafePointer(joins.baseAddress)
                entry.join_count = entryCount
                entry.time_offsets = offsets
                entry.cgroup = cgroup
                entry.socket = sockets.far.raw
                entry.runtime_socket = sockets.near.raw
                entry.wait_for_maps = makesUser ? 1 : 0
                return cs_enter(&entry, &pidfd, &step)
            }
        }
        if pid == 0 { return nil }
        guard pid > 0 else {
            let name = step.map { String(cString: $0) } ?? "clone3"
            if errno == ERANGE, timeOffsets != nil {
                throw RefusedField("linux.timeOffsets", "a clock would stand before 0, or too far from where it does")
            }
            throw KernelError(name, errno: errno, hint: Self.hint(errno))
        }
        return EnteredProcess(pid: pid, pidfd: OwnedFD(adopting: pidfd))
    }

    /// In the child: makes the namespaces that are left.
    func complete() throws(KernelError) {
        guard madeInside != 0 else { return }
        guard unshare(Int32(madeInside)) == 0 else {
            let number = errno
            let kinds = [NamespaceSpec.Kind.network, .ipc].filter { madeInside & UInt64(Self.flag($0)) != 0 }
            throw KernelError(
                "unshare", "\(kinds.map(\.rawValue).joined(separator: " and ")) namespace", errno: number,
                hint: Self.hint(number))
        }
    }

    private static func hint(_ number: Int32) -> String {
        switch number {
        case EPERM: "root and CAP_SYS_ADMIN are needed to make namespaces"
        case EINVAL: "does this kernel have all of these kinds of namespaces? see /proc/self/ns"
        case ENOSPC: "a limit in /proc/sys/user/max_*_namespaces is reached"
        default: ""
        }
    }

    private func withOffsets<Result>(_ body: (UnsafePointer<CChar>?) -> Result) -> Result {
        guard let timeOffsets else { return body(nil) }
        return timeOffsets.withCString { body($0) }
    }
}
