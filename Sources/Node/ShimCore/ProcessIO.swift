import CKernel
import Glibc
import JSON
import Kernel
import ShimProtocol
import StreamFrames

/// The stdio of one process of a container: reads its output for the log and the clients, feeds its input.
///
/// Back-pressure goes both ways. While one client has more than `ShimLimits.clientHighWater` bytes waiting, nothing is
/// read from the process, which then blocks in write(2). While the process does not read its input, nothing is read
/// from the clients that send it.
final class ProcessIO {
    /// A client and what it wants.
    private struct Listener {
        let connection: Connection
        let stdin: Bool
        let stdout: Bool
        let stderr: Bool
    }

    private let loop: EventLoop
    /// Ours of the process's output, by stream; a terminal is stdout alone.
    private var outputs: [LogRecord.Stream: SharedFD] = [:]
    /// Ours of the process's input; a terminal is the same descriptor as its output.
    private var input: SharedFD?
    private let terminal: SharedFD?
    /// Where the output goes beside the clients.
    let log: LogWriter?
    private var listeners: [Listener] = []
    private var pendingInput = ByteQueue()
    private var inputEnds = false
    private var drain: Drain?

    /// The last reading after the process has ended.
    private struct Drain {
        /// Bytes that are still taken from processes in the background which keep writing.
        var allowance: Int
        let timer: Int
        let completion: () -> Void
    }

    /// Takes over our ends, non-blocking all.
    init(loop: EventLoop, stdio: ContainerStdio, log: LogWriter?) throws(KernelError) {
        self.loop = loop
        self.log = log
        terminal = stdio.terminal
        if let terminal = stdio.terminal {
            outputs[.stdout] = terminal
            input = terminal
        } else {
            outputs[.stdout] = stdio.stdout
            outputs[.stderr] = stdio.stderr
            input = stdio.stdin
        }
        for fd in outputs.values {
            let raw = fd.raw
            try loop.watch(raw, EventLoop.readable) { [unowned self] events in handle(raw, events) }
        }
        if let input = stdio.stdin {
            let raw = input.raw
            try loop.watch(raw, 0) { [unowned self] _ in flushInput() }
        }
    }

    deinit { closeAll() }

    /// All output has been read to its end.
    var outputEnded: Bool { outputs.isEmpty }
    var hasInput: Bool { input != nil }

    private func closeAll() {
        for fd in outputs.values { loop.forget(fd.raw) }
        if let input { loop.forget(input.raw) }
        outputs = [:]
        input = nil
    }

    /// A window's size for the process.
    func resize(columns: UInt16, rows: UInt16) throws(KernelError) {
        guard let terminal, input != nil else {
            throw KernelError("resize", errno: ENOTTY, hint: "the process has no terminal, or has ended")
        }
        try Terminal.setSize(Terminal.Size(columns: columns, rows: rows), of: terminal.raw)
    }

    // MARK: Clients

    func attach(_ connection: Connection, stdin: Bool, stdout: Bool, stderr: Bool) {
        listeners.append(Listener(connection: connection, stdin: stdin, stdout: stdout, stderr: stderr))
    }

    func detach(_ connection: Connection) {
        listeners.removeAll { $0.connection === connection }
        updateReading()
    }

    /// Takes all clients off, for their last frames.
    func detachAll() -> [Connection] {
        defer { listeners = [] }
        return listeners.map(\.connection)
    }

    /// A client's waiting bytes have become few or many.
    func clientPressureChanged() { updateReading() }

    // MARK: Input

    /// More input waits than the process takes.
    var inputBlocked: Bool { pendingInput.count > ShimLimits.inputHighWater }

    /// Bytes for the process; dropped when it takes none any more.
    func write(_ bytes: [UInt8]) {
        guard input != nil, !inputEnds else { return }
        pendingInput.append(bytes)
        flushInput()
    }

    /// Closes the process's input once it has what was written. Terminals have no such thing.
    func endInput() {
        guard terminal == nil, input != nil else { return }
        inputEnds = true
        flushInput()
    }

    private func flushInput() {
        guard let input else { return }
        let wasBlocked = inputBlocked
        switch pendingInput.flush({ Glibc.write(input.raw, $0, $1) }).progress {
        case .blocked: break
        case .empty: if inputEnds { closeInput() }
        // EPIPE, or EIO of a terminal: nobody reads any more. For the writer it is as if all were read.
        case .failed: closeInput()
        }
        updateInputEvents()
        if wasBlocked, !inputBlocked {
            for listener in listeners where listener.stdin { listener.connection.inputUnblocked() }
        }
    }

    private func closeInput() {
        pendingInput.removeAll()
        inputEnds = true
        guard let input, terminal == nil else { return }
        loop.forget(input.raw)
        self.input = nil
    }

    private func updateInputEvents() {
        guard let input else { return }
        if terminal != nil { return updateReading() }
        try? loop.setEvents(input.raw, pendingInput.isEmpty ? 0 : EventLoop.writable)
    }

    // MARK: Output

    private func updateReading() {
        let isHeld =
            drain == nil && listeners.contains { $0.connection.waitingBytes > ShimLimits.clientHighWater }
        for fd in outputs.values {
            var events = isHeld ? 0 : EventLoop.readable
            if fd === terminal, !pendingInput.isEmpty { events |= EventLoop.writable }
            // A failure would only mean a closed descriptor, and these are open.
            try? loop.setEvents(fd.raw, events)
        }
    }

    private func handle(_ raw: Int32, _ events: UInt32) {
        if events & EventLoop.writable != 0, terminal?.raw == raw { flushInput() }
        guard events & ~EventLoop.writable != 0, let (stream, fd) = outputs.first(where: { $0.value.raw == raw })
        else { return }
        readOnce(stream, fd)
        finishDrainIfDone()
    }

    /// One read of at most `Frame.dataLimit` bytes.
    ///
    /// - Returns: false when there was nothing to read now.
    @discardableResult
    private func readOnce(_ stream: LogRecord.Stream, _ fd: SharedFD) -> Bool {
        var count = 0
        let buffer = [UInt8](unsafeUninitializedCapacity: Frame.dataLimit) { memory, filled in
            count = Glibc.read(fd.raw, memory.baseAddress, memory.count)
            filled = max(0, count)
        }
        if count < 0, errno == EAGAIN || errno == EINTR { return errno == EINTR }
        guard count > 0 else {
            // End of file; a terminal whose other side is closed by all says EIO.
            end(stream, fd)
            return true
        }
        drain?.allowance -= count
        deliver(stream, buffer[...])
        return true
    }

    private func end(_ stream: LogRecord.Stream, _ fd: SharedFD) {
        loop.forget(fd.raw)
        outputs[stream] = nil
        if fd === terminal { input = nil }
    }

    private func deliver(_ stream: LogRecord.Stream, _ bytes: ArraySlice<UInt8>) {
        log?.write(stream, bytes, at: .now())
        let kind: Frame.Kind = stream == .stdout ? .stdout : .stderr
        for listener in listeners where stream == .stdout ? listener.stdout : listener.stderr {
            listener.connection.send(bytes, as: kind)
        }
        updateReading()
    }

    // MARK: The end

    /// Reads what is left after the process has ended, then closes everything and calls `completion`.
    ///
    /// Usually the pipes are at their end at once. Processes in the background that hold them open are heard for
    /// `ShimLimits.drainMilliseconds` and at most `ShimLimits.drainBytes`; slow clients delay nothing.
    func drain(_ completion: @escaping () -> Void) {
        let timer = loop.after(milliseconds: ShimLimits.drainMilliseconds) { [unowned self] in finishDrain() }
        drain = Drain(allowance: ShimLimits.drainBytes, timer: timer, completion: completion)
        updateReading()
        for (stream, fd) in outputs {
            while outputs[stream] != nil, drain.map({ $0.allowance > 0 }) ?? false, readOnce(stream, fd) {}
        }
        finishDrainIfDone()
    }

    private func finishDrainIfDone() {
        guard let drain, outputs.isEmpty || drain.allowance <= 0 else { return }
        finishDrain()
    }

    private func finishDrain() {
        guard let drain else { return }
        loop.cancel(drain.timer)
        self.drain = nil
        closeAll()
        log?.finish(at: .now())
        drain.completion()
    }
}

/// Both sides of a process's stdio, before the start.
struct ContainerStdio {
    /// Ours, non-blocking; nil where the process has /dev/null or a terminal.
    private(set) var stdin: SharedFD?
    private(set) var stdout: SharedFD?
    private(set) var stderr: SharedFD?
    /// Ours of the terminal.
    private(set) var terminal: SharedFD?
    /// The process's descriptors 0, 1 and 2.
    private var processSide: [SharedFD] = []

    /// Pipes, with /dev/null as input unless `stdin`.
    init(pipesWithInput hasInput: Bool) throws(KernelError) {
        if hasInput {
            let (read, write) = try Self.pipe(oursIsRead: false)
            stdin = write
            processSide.append(read)
        } else {
            processSide.append(SharedFD(try File.open("/dev/null", O_RDONLY)))
        }
        for stream in LogRecord.Stream.allCases {
            let (read, write) = try Self.pipe(oursIsRead: true)
            processSide.append(write)
            if stream == .stdout { stdout = read } else { stderr = read }
        }
    }

    /// Gives away the process's descriptors 0, 1 and 2: its output ends only when no copy of ours is open.
    mutating func takeProcessSide() -> [SharedFD] {
        defer { processSide = [] }
        return processSide
    }

    /// A terminal that the runtime has made.
    init(terminal: SharedFD) throws(KernelError) {
        try Self.setNonBlocking(terminal.raw)
        self.terminal = terminal
    }

    private static func pipe(oursIsRead: Bool) throws(KernelError) -> (read: SharedFD, write: SharedFD) {
        var ends: [Int32] = [-1, -1]
        try systemCall("pipe2") { pipe2(&ends, O_CLOEXEC) }
        let (read, write) = (SharedFD(OwnedFD(adopting: ends[0])), SharedFD(OwnedFD(adopting: ends[1])))
        try setNonBlocking(oursIsRead ? read.raw : write.raw)
        return (read, write)
    }

    static func setNonBlocking(_ fd: Int32) throws(KernelError) {
        let flags = try systemCall("fcntl(F_GETFL)") { ck_fcntl(fd, F_GETFL, 0) }
        try systemCall("fcntl(F_SETFL)") { ck_fcntl(fd, F_SETFL, flags | O_NONBLOCK) }
    }
}

/// Bounds of one shim; every queue has one.
enum ShimLimits {
    /// Bytes waiting for one client at which its process's output is no longer read.
    static let clientHighWater = 256 << 10
    /// The same for a client of `events`, which cannot be slowed down: it is dropped.
    static let eventsHighWater = 1 << 20
    /// Bytes of input waiting for a process at which clients are no longer read.
    static let inputHighWater = 64 << 10
    /// A client that has bytes waiting and takes none for this long is dropped.
    static let clientStallMilliseconds: Int64 = 60_000
    /// A client that connects has this long to send its request.
    static let requestMilliseconds: Int64 = 30_000
    /// How long a connection stays open for the client to take the last frames and close.
    static let lingerMilliseconds: Int64 = 5_000
    /// One call of the OCI runtime, hooks included.
    static let runtimeMilliseconds: Int64 = 120_000
    /// How long output is awaited from processes that outlive the container's first one.
    static let drainMilliseconds: Int64 = 1_000
    static let drainBytes = 1 << 20
    /// How long `delete` with force waits for the end of a killed container.
    static let killMilliseconds: Int64 = 20_000
    /// Between SIGKILLs to a container that has outlived its lease.
    static let rekillMilliseconds: Int64 = 2_000
    /// Between attempts to write an exit record.
    static let recordRetryMilliseconds: Int64 = 1_000
    /// Between looks for the socket's path while there is no container.
    static let orphanCheckMilliseconds: Int64 = 10_000
    /// Processes run at once by `exec`.
    static let runningExecs = 256
}
