import CKernel
import CStage
import Glibc
import JSON
import Kernel
import OCISpec

/// The agent that answers a container's notified system calls: `linux.seccomp.listenerPath` and `listenerMetadata`.
///
/// Each process that loads such a filter has a listener of its own, which the agent gets over a connection of its own:
/// the first process when its program is started, and every process of `exec`.
struct SeccompListener: Equatable {
    /// A listening unix stream socket; absolute.
    let path: String
    /// Passed on as it is.
    let metadata: String?

    /// How long an agent may take to accept a connection, and to read from it.
    static let timeoutSeconds = 10

    /// nil unless the filter asks somebody.
    ///
    /// - Throws: `RefusedField` when there is no socket at the path.
    init?(_ spec: SeccompSpec) throws {
        guard spec.notifies, let path = spec.listenerPath else { return nil }
        self.path = path
        metadata = spec.listenerMetadata
        var info = stat()
        guard stat(path, &info) == 0, info.st_mode & S_IFMT == S_IFSOCK else {
            throw RefusedField("linux.seccomp.listenerPath", "\(path) is no unix socket: start the seccomp agent first")
        }
    }

    /// Answers a process that says `CS_LISTENER`: connects to the agent, lets the process load its filter, takes a copy of
    /// the listener, gives it to the agent, and only then lets the process go on to its program.
    ///
    /// - Parameters:
    ///   - pidfd: of the process that loads the filter.
    ///   - pid: the same, as the runtime numbers it.
    ///   - state: the container's.
    /// - Returns: what the process reported instead, when its filter could not be loaded.
    /// - Throws: when the agent cannot be reached within `timeoutSeconds`; the process must be killed then, as it waits.
    func serve(
        _ request: Channel.Message, on channel: Channel, pidfd: Int32, pid: pid_t, state: RuntimeState
    ) throws -> Channel.Message? {
        guard let page = request.descriptor else {
            throw RuntimeError("the seccomp listener was announced without a page")
        }
        let agent = try withContext("linux.seccomp.listenerPath") { try connect() }
        try channel.send(CS_GO)
        let listener: SharedFD
        switch try take(request.error, of: pidfd, channel) {
        case .taken(let descriptor): listener = descriptor
        case .failed(let message): return message
        }
        try withContext("linux.seccomp.listenerPath") {
            try UnixSocket.send(agent.raw, processState(pid, state).serialized(), descriptors: [listener.raw])
        }
        var yes: UInt8 = 1
        try systemCall("pwrite", "the page of the seccomp listener") { pwrite(page.raw, &yes, 1, 0) }
        return nil
    }

    private func connect() throws -> SharedFD {
        let socket = try UnixSocket.make(.stream)
        // It bounds connect(2) too, where the agent's queue is full.
        var time = timeval(tv_sec: Self.timeoutSeconds, tv_usec: 0)
        let raw = socket.raw
        try systemCall("setsockopt(SO_SNDTIMEO)") {
            setsockopt(raw, SOL_SOCKET, SO_SNDTIMEO, &time, socklen_t(MemoryLayout<timeval>.size))
        }
        do throws(KernelError) {
            try UnixSocket.connect(raw, to: path)
        } catch {
            let slow = error.errno == EAGAIN ? "the agent did not accept within \(Self.timeoutSeconds) seconds" : ""
            throw KernelError("connect", path, errno: error.errno, hint: slow.isEmpty ? "does the agent run?" : slow)
        }
        return SharedFD(socket)
    }

    private enum Outcome {
        case taken(SharedFD)
        case failed(Channel.Message)
    }

    /// A copy of the listener, as soon as there is one: the process makes no call to say so.
    private func take(_ number: Int32, of pidfd: Int32, _ channel: Channel) throws -> Outcome {
        while true {
            let copy = ck_pidfd_getfd(pidfd, number)
            if copy >= 0 {
                let listener = SharedFD(OwnedFD(adopting: Int32(copy)))
                try Self.requireListener(listener.raw)
                return .taken(listener)
            }
            // ESRCH: it ends, and the channel tells why.
            guard [EBADF, EINTR, ESRCH].contains(errno) else {
                throw KernelError(
                    "pidfd_getfd", "the seccomp listener", errno: errno,
                    hint: errno == EPERM ? "CAP_SYS_PTRACE is needed" : "")
            }
            var word = pollfd(fd: channel.socket, events: Int16(POLLIN), revents: 0)
            if poll(&word, 1, 1) > 0 {
                guard let message = try channel.receive() else {
                    throw RuntimeError("the container's process ended while it loaded its seccomp filter")
                }
                return .failed(message)
            }
        }
    }

    private static func requireListener(_ descriptor: Int32) throws {
        var name = [CChar](repeating: 0, count: 64)
        let length = readlink("/proc/self/fd/\(descriptor)", &name, name.count)
        let text = String(decoding: name.prefix(max(0, length)).map { UInt8(bitPattern: $0) }, as: UTF8.self)
        guard text == "anon_inode:seccomp notify" else {
            throw RuntimeError("the seccomp listener is something else: \(text)")
        }
    }

    /// The specification's container process state.
    private func processState(_ pid: pid_t, _ state: RuntimeState) -> JSONValue {
        var object: JSONObject = [
            "ociVersion": .string(Validation.highestVersion), "fds": ["seccompFd"], "pid": .integer(Int64(pid)),
        ]
        if let metadata, !metadata.isEmpty { object["metadata"] = .string(metadata) }
        object["state"] = state.json
        return .object(object)
    }
}

extension SeccompListener {
    init(_ reader: JSONReader) throws(JSONError) {
        path = try reader.string("path")
        metadata = try reader.optionalString("metadata")
    }

    /// As the container's record keeps it for `start` and `exec`.
    var json: JSONValue {
        var object: JSONObject = ["path": .string(path)]
        if let metadata { object["metadata"] = .string(metadata) }
        return .object(object)
    }
}
