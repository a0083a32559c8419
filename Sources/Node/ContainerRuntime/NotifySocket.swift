import CKernel
import Glibc
import Kernel
import OCISpec

/// `$NOTIFY_SOCKET`: the runtime was started by a service manager that wants to know when the container is ready, see
/// sd_notify(3). The container gets a socket of its own, and what it says there about being ready is passed on.
struct NotifySocket {
    /// The service manager's socket: a path, or a name with `@` before it.
    let host: String
    /// The directory on the host that appears in the container, below the container's state.
    let directory: String

    /// Where the container finds it.
    static let place = "/run/notify"
    private static let name = "notify.sock"
    /// The longest message of a container that is looked at.
    static let longest = 4096

    /// nil without `$NOTIFY_SOCKET`.
    init?(_ store: StateStore, _ id: ContainerID) {
        guard let host = getenv("NOTIFY_SOCKET").map({ String(cString: $0) }), !host.isEmpty else { return nil }
        self.host = host
        directory = "\(store.directory(id))/notify"
    }

    /// The mount by which the container reaches the socket.
    var mount: MountSpec {
        MountSpec(
            destination: Self.place, type: "bind", source: directory,
            options: ["bind", "nosuid", "noexec", "nodev", "ro"])
    }

    /// The variable that tells the program.
    static var environment: [String] { ["NOTIFY_SOCKET=\(place)/\(name)"] }

    /// Makes the directory, for `create` and `run`.
    func prepare() throws { try systemCall("mkdir", directory) { mkdir(directory, 0o755) } }

    /// Makes the socket, before the program runs. Any user of the container may write to it.
    ///
    /// - Returns: nil for a container that was made without a place for it.
    func listen() throws -> NotifyRelay? {
        guard File.exists(directory) else { return nil }
        let socket = try UnixSocket.make(.datagram)
        let holder = try File.open(directory, Int32(CK_O_PATH) | O_DIRECTORY | O_NOFOLLOW)
        let path = "/proc/self/fd/\(holder.raw)/\(Self.name)"
        let raw = socket.raw
        // That of a start that was killed.
        unlink(path)
        try systemCall("bind", "\(directory)/\(Self.name)") { ck_unix_bind(raw, path) }
        try systemCall("chmod", "\(directory)/\(Self.name)") { chmod(path, 0o777) }
        return NotifyRelay(container: SharedFD(socket), host: try connect())
    }

    private func connect() throws -> SharedFD {
        let socket = try UnixSocket.make(.datagram)
        let raw = socket.raw
        try withContext("$NOTIFY_SOCKET") {
            if host.hasPrefix("@") {
                try systemCall("connect", host) { ck_unix_connect_abstract(raw, String(host.dropFirst())) }
            } else {
                try UnixSocket.connect(raw, to: host)
            }
        }
        return SharedFD(socket)
    }
}

/// Passes `READY=` of a container on, once.
struct NotifyRelay {
    let container: SharedFD
    let host: SharedFD

    /// Waits until the container is ready, or has ended: what `start` and `run --detach` do last.
    ///
    /// - Parameters:
    ///   - main: which process the service manager shall watch from then on.
    ///   - process: a pidfd of the container's first process.
    func wait(main: pid_t, process: Int32, log: RuntimeLog) throws {
        while true {
            var polls = [
                pollfd(fd: container.raw, events: Int16(POLLIN), revents: 0),
                pollfd(fd: process, events: Int16(POLLIN), revents: 0),
            ]
            try systemCall("poll") { poll(&polls, 2, -1) }
            if polls[0].revents == 0 { return }
            if try relay(main: main) { return try barrier(log) }
        }
    }

    /// Reads one message of the container.
    ///
    /// - Returns: whether it said that it is ready; then the service manager knows, and knows whom to watch.
    func relay(main: pid_t) throws -> Bool {
        var buffer = [UInt8](repeating: 0, count: NotifySocket.longest)
        let count = recv(container.raw, &buffer, buffer.count, Int32(MSG_DONTWAIT))
        guard count > 0 else { return false }
        let ready = buffer[..<count].split(separator: 10).first { $0.starts(with: Array("READY=".utf8)) }
        guard let ready else { return false }
        // Of all that a container may say, only this reaches the service manager: never whom to watch, for one.
        try UnixSocket.send(host.raw, Array(ready) + [10])
        try UnixSocket.send(host.raw, Array("MAINPID=\(main)\n".utf8))
        return true
    }

    /// Waits until the service manager has read it all: when the runtime has ended it could not tell any more who spoke.
    private func barrier(_ log: RuntimeLog) throws {
        var ends: [Int32] = [-1, -1]
        try systemCall("pipe2") { pipe2(&ends, O_CLOEXEC) }
        let reading = OwnedFD(adopting: ends[0])
        do {
            let writing = OwnedFD(adopting: ends[1])
            try UnixSocket.send(host.raw, Array("BARRIER=1".utf8), descriptors: [writing.raw])
        }
        var done = pollfd(fd: reading.raw, events: Int16(POLLIN), revents: 0)
        let ready = try systemCall("poll") { poll(&done, 1, 30_000) }
        if ready == 0 { log.write(.warning, "$NOTIFY_SOCKET: the service manager did not answer BARRIER=1") }
    }
}
