import CKernel
import Glibc
import JSON
import Kernel
import ShimProtocol
import StreamFrames

/// The shim of one task: its containers and execs, its clients, and the loop that serves them.
final class Shim {
    let options: ShimOptions
    let loop: EventLoop
    let reaper = Reaper()
    let runtime: RuntimeProgram
    /// The socket's directory, for temporary files.
    let directory: String
    private let listener: SharedFD
    private var connections: [ObjectIdentifier: Connection] = [:]
    private var subscribers: [Connection] = []
    private var slots: [String: ContainerSlot] = [:]
    /// Containers in the order of their first creation.
    private var order: [String] = []
    var execs: [Exec] = []
    private var finishedExecs: [ShimExecState] = []
    private var temporaryFiles = 0
    private var orphanTimer: Int?
    /// There since the first lease.
    private(set) var leaseTimer: LeaseTimer?

    /// Listens; `run` serves.
    init(_ options: ShimOptions) throws(KernelError) {
        self.options = options
        directory = String(options.socket[..<(options.socket.lastSlash ?? options.socket.startIndex)])
        loop = try EventLoop()
        runtime = RuntimeProgram(
            path: options.runtime, root: options.runtimeRoot, directory: directory, loop: loop, reaper: reaper,
            oomScore: OOMScore())
        listener = SharedFD(try Self.listen(options.socket))
        // Before anybody can reach us: a signal or a child's end must not come too early.
        try watchSignals()
        try ContainerStdio.setNonBlocking(listener.raw)
        try loop.watch(listener.raw, EventLoop.readable) { [unowned self] _ in acceptAll() }
        watchForOrphanage()
    }

    private static func listen(_ path: String) throws(KernelError) -> OwnedFD {
        do throws(KernelError) {
            _ = try UnixSocket.connect(path)
        } catch {
            // A socket that nobody listens to is left from a shim that was killed.
            if error.errno == ECONNREFUSED { unlink(path) }
            return try UnixSocket.listen(path)
        }
        throw KernelError("listen", path, errno: EADDRINUSE, hint: "another shim serves this task")
    }

    /// Serves until shut down.
    func run() throws(KernelError) {
        try loop.run()
        unlink(options.socket)
        if let pidFile = options.pidFile { unlink(pidFile) }
    }

    // MARK: Signals

    private func watchSignals() throws(KernelError) {
        var set = sigset_t()
        sigemptyset(&set)
        for number in [SIGCHLD, SIGTERM, SIGINT, SIGHUP] { sigaddset(&set, number) }
        sigprocmask(SIG_BLOCK, &set, nil)
        let flags = Int32(SFD_CLOEXEC) | Int32(SFD_NONBLOCK)
        let signals = SharedFD(OwnedFD(adopting: try systemCall("signalfd") { signalfd(-1, &set, flags) }))
        try loop.watch(signals.raw, EventLoop.readable) { [unowned self] _ in takeSignals(signals) }
    }

    private func takeSignals(_ signals: SharedFD) {
        var info = signalfd_siginfo()
        while read(signals.raw, &info, MemoryLayout<signalfd_siginfo>.size) == MemoryLayout<signalfd_siginfo>.size {
            if info.ssi_signo != UInt32(SIGCHLD), !hasLivingContainer { loop.stop() }
        }
        // Several ends may share one signal.
        reaper.reap()
    }

    // MARK: Clients

    private func acceptAll() {
        while true {
            let socket: SharedFD
            do throws(KernelError) {
                socket = SharedFD(try UnixSocket.accept(listener.raw))
            } catch {
                if error.errno == EMFILE || error.errno == ENFILE || error.errno == ENOMEM { pauseAccepting() }
                // EAGAIN: that was all. Others are about a client that has gone again.
                if error.errno == ECONNABORTED { continue }
                return
            }
            accept(socket)
        }
    }

    /// Without descriptors the listener would report the same client again and again.
    private func pauseAccepting() {
        try? loop.setEvents(listener.raw, 0)
        loop.after(milliseconds: 100) { [unowned self] in
            try? loop.setEvents(listener.raw, EventLoop.readable)
        }
    }

    private func accept(_ socket: SharedFD) {
        do throws(KernelError) {
            try ContainerStdio.setNonBlocking(socket.raw)
            let peer = try UnixSocket.peer(socket.raw)
            let connection = try Connection(socket, loop: loop, shim: self)
            connections[ObjectIdentifier(connection)] = connection
            if peer.uid != 0 {
                connection.fail("uid \(peer.uid) may not use this socket; only root may")
            } else if connections.count > ShimProtocol.connectionLimit {
                connection.fail("the shim has \(ShimProtocol.connectionLimit) connections already; close some first")
            }
        } catch {
            // The client is gone, or the kernel has no memory for it: it sees its connection closed.
        }
    }

    func connectionClosed(_ connection: Connection) {
        connections[ObjectIdentifier(connection)] = nil
        subscribers.removeAll { $0 === connection }
    }

    /// From now on the client gets all events; first of all the present state.
    func subscribe(_ connection: Connection) {
        subscribers.append(connection)
        connection.becomeEvents()
        connection.send(ShimResponse())
        connection.send(ShimEvent(.state, at: .now(), containers: containers.map(\.state)))
    }

    func announce(_ event: ShimEvent) {
        for subscriber in subscribers { subscriber.send(event) }
    }

    func announce(_ kind: ShimEvent.Kind, _ container: Container) {
        announce(ShimEvent(kind, at: .now(), container: container.state))
    }

    // MARK: Containers

    var slotsInOrder: [ContainerSlot] { order.compactMap { slots[$0] } }
    var containers: [Container] { order.compactMap { slots[$0]?.container } }
    var hasLivingContainer: Bool { containers.contains(where: \.isAlive) }

    /// The container's slot, or nil when there has never been one.
    func slot(_ id: String) -> ContainerSlot? { slots[id] }
    func container(_ id: String) -> Container? { slots[id]?.container }

    /// The slot for a container that is to be; nil when there are too many.
    func makeSlot(_ id: String) -> ContainerSlot? {
        if let slot = slots[id] { return slot }
        guard slots.count < ShimProtocol.containerLimit else { return nil }
        let slot = ContainerSlot()
        slots[id] = slot
        order.append(id)
        return slot
    }

    func removeVacantSlots() {
        order.removeAll { id in
            guard let slot = slots[id], slot.isVacant else { return false }
            slots[id] = nil
            return true
        }
        watchForOrphanage()
    }

    func prepareLeaseTimer() throws(KernelError) {
        guard leaseTimer == nil else { return }
        leaseTimer = try LeaseTimer(loop) { [unowned self] in enforceLeases() }
    }

    /// A path for a short-lived file beside the socket.
    func temporaryPath(_ suffix: String) -> String { "\(directory)/tmp-\(nextTemporaryNumber()).\(suffix)" }

    func nextTemporaryNumber() -> Int {
        temporaryFiles += 1
        return temporaryFiles
    }

    // MARK: Execs

    var execStates: [ShimExecState] { finishedExecs + execs.map(\.state) }

    func execFinished(_ exec: Exec) {
        execs.removeAll { $0 === exec }
        finishedExecs.append(exec.state)
        if finishedExecs.count > ShimProtocol.finishedExecLimit { finishedExecs.removeFirst() }
        announce(ShimEvent(.execExited, at: .now(), exec: exec.state))
    }

    /// The container is deleted: nobody asks for its execs any more.
    func forgetExecs(of container: String) { finishedExecs.removeAll { $0.container == container } }

    // MARK: The end

    /// Ends the loop once the last answer is out.
    func shutDown() { loop.after(milliseconds: 20) { [unowned self] in loop.stop() } }

    /// While there is no container, looks whether anybody can still reach us.
    private func watchForOrphanage() {
        guard orphanTimer == nil, slots.isEmpty else { return }
        orphanTimer = loop.after(milliseconds: ShimLimits.orphanCheckMilliseconds) { [unowned self] in
            orphanTimer = nil
            if slots.isEmpty, connections.isEmpty, !File.exists(options.socket) { return loop.stop() }
            watchForOrphanage()
        }
    }
}
