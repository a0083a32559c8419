import CKernel
import CNISpec
import Glibc
import Kernel
import Networking
import Synchronization
import Testing

/// A machine of its own for a test: a thread in fresh network and mount namespaces, with its own /sys, /run and data
/// directory, and an uplink to a network "outside" behind it. All of it goes away with the thread.
///
///     pods ── martlet0 (10.213.0.1/16) ── [machine] ── up0 198.51.100.2/24 ── 198.51.100.1 ── [outside]
struct PrivateMachine: Sendable {
    let directory: String
    let outside: String
    var data: String { "\(directory)/data" }
    var run: String { "\(directory)/run" }

    /// Runs `body` on the machine, on a thread that ends with it.
    static func run(_ body: @escaping @Sendable (PrivateMachine) async throws -> Void) async throws {
        let thread = try PrivateThread()
        defer { thread.end() }
        try await withTaskExecutorPreference(thread) {
            let mounts = try File.open("/proc/thread-self/ns/mnt", O_RDONLY)
            let network = try File.open("/proc/thread-self/ns/net", O_RDONLY)
            // Threads that are started from here when the test goes on elsewhere would be on this machine for ever.
            defer {
                setns(mounts.raw, Int32(CK_CLONE_NEWNS))
                setns(network.raw, Int32(CK_CLONE_NEWNET))
            }
            let machine = try boot()
            defer { try? NetworkNamespace.remove(at: machine.outside) }
            try await body(machine)
        }
    }

    private static func boot() throws -> PrivateMachine {
        try systemCall("unshare") { unshare(Int32(CK_CLONE_NEWNET) | Int32(CK_CLONE_NEWNS)) }
        try systemCall("mount") { mount(nil, "/", nil, UInt(MS_REC | MS_PRIVATE), nil) }
        try systemCall("mount") { mount("sysfs", "/sys", "sysfs", 0, nil) }
        try systemCall("mount") { mount("tmpfs", "/run", "tmpfs", 0, nil) }
        let machine = PrivateMachine(directory: "/run/machine", outside: "/run/outside")
        try File.makeDirectories(machine.directory)
        try systemCall("ioctl", "lo") { ck_interface_up("lo") }
        try NetworkNamespace.create(at: machine.outside)
        try machine.ip("link add up0 type veth peer name down0")
        try machine.ip("link set down0 netns \(machine.outside)")
        try machine.ip("addr add 198.51.100.2/24 dev up0")
        try machine.ip("link set up0 mtu 1400 up")
        try machine.ip("route add default via 198.51.100.1")
        try machine.ip("addr add 198.51.100.1/24 dev down0", in: machine.outside)
        try machine.ip("link set down0 mtu 1400 up", in: machine.outside)
        return machine
    }

    func configuration() -> BridgeNetworkConfiguration {
        var configuration = BridgeNetworkConfiguration(dataDirectory: data, runDirectory: run)
        // Where there is none the network says so.
        configuration.overlayProgram = (try? ShimFixture.program("martlet-overlay")) ?? "/nowhere/martlet-overlay"
        configuration.portmapProgram = (try? ShimFixture.program("portmap")) ?? "/nowhere/portmap"
        return configuration
    }

    func network(_ change: (inout BridgeNetworkConfiguration) -> Void = { _ in }) throws -> BridgeNetwork {
        var configuration = configuration()
        change(&configuration)
        return try BridgeNetwork(configuration)
    }

    /// Runs a program of the machine and returns its output; one that fails is an error with its words.
    @discardableResult
    func command(_ line: String, in namespace: String? = nil) throws -> String {
        let program = Program("/bin/sh", ["-c", line], environment: ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"])
        let outcome = try inside(namespace) { () throws(KernelError) -> ProgramResult in
            do throws(ProgramError) {
                return try program.run()
            } catch {
                throw KernelError("run", "\(line): \(error)", errno: EINVAL)
            }
        }
        guard outcome.status == .exited(0) else {
            throw KernelError("run", "\(line): \(outcome.errorText)", errno: EINVAL)
        }
        return String(decoding: outcome.output, as: UTF8.self)
    }

    @discardableResult
    func ip(_ words: String, in namespace: String? = nil) throws -> String {
        try command("ip \(words)", in: namespace)
    }

    private func inside<T: Sendable>(
        _ namespace: String?, _ body: @escaping @Sendable () throws(KernelError) -> T
    ) throws -> T {
        if let namespace { return try NetworkNamespace.run(in: namespace, body) }
        return try body()
    }

    /// A pod's pinned namespace.
    func pin(_ id: String) throws -> String {
        try File.makeDirectories("\(run)/netns")
        let path = "\(run)/netns/\(id)"
        try NetworkNamespace.create(at: path)
        return path
    }

    /// Rules and chains of the plugins and ours, one a line.
    func rules() throws -> [String] {
        try ["nat", "filter", "raw"].flatMap { table in
            try command("iptables -t \(table) -S").split(separator: "\n").map { String($0) }
                .filter { $0.contains("CNI-") || $0.contains("martlet") }
        } + published()
    }

    /// What our portmap has of containers: `network container device`, one for each port and set.
    func published() throws -> [String] {
        try command("nft list table inet martlet_portmap 2>/dev/null || true").split(separator: "\"")
            .map { String($0) }.filter { $0.hasPrefix("martlet ") && $0.hasSuffix(" eth0") }
    }

    func devices() throws -> [String] { try File.list("/sys/class/net").sorted() }

    func leases() -> [String] {
        ((try? File.list("\(run)/cni/ipam/martlet")) ?? []).filter { IPAddress($0) != nil }.sorted()
    }

    // MARK: Conversations

    /// Listens on a port in a namespace, until it is released.
    func listen(_ port: UInt16, on address: String = "0.0.0.0", in namespace: String? = nil) throws -> SharedFD {
        let name = try socketName(address, port)
        return try inside(namespace) { () throws(KernelError) -> SharedFD in
            let type = Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue)
            let fd = SharedFD(OwnedFD(adopting: try systemCall("socket") { socket(AF_INET, type, 0) }))
            var on: Int32 = 1
            setsockopt(fd.raw, SOL_SOCKET, SO_REUSEADDR, &on, 4)
            try systemCall("bind", "port \(port)") { withName(name) { bind(fd.raw, $0, $1) } }
            try systemCall("listen") { Glibc.listen(fd.raw, 16) }
            return fd
        }
    }

    /// Connects from a namespace to an address; returns who the server sees, or nil when there is no connection
    /// within two seconds or the server is not `listener`.
    func talk(
        to address: String, _ port: UInt16, from namespace: String? = nil, listener: SharedFD,
        within seconds: Int = 2
    ) throws -> String? {
        let name = try socketName(address, port)
        return try inside(namespace) { () throws(KernelError) -> String? in
            let type = Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue)
            let client = SharedFD(OwnedFD(adopting: try systemCall("socket") { socket(AF_INET, type, 0) }))
            var limit = timeval(tv_sec: seconds, tv_usec: 0)
            setsockopt(client.raw, SOL_SOCKET, SO_SNDTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
            guard withName(name, { connect(client.raw, $0, $1) }) == 0 else { return nil }
            var wait = pollfd(fd: listener.raw, events: Int16(POLLIN), revents: 0)
            guard poll(&wait, 1, 1000) == 1 else { return nil }
            var peer = sockaddr_in()
            var length = socklen_t(MemoryLayout<sockaddr_in>.size)
            let accepted = withUnsafeMutablePointer(to: &peer) {
                $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { accept(listener.raw, $0, &length) }
            }
            guard accepted >= 0 else { return nil }
            close(accepted)
            return IPAddress(.v4, UInt128(UInt32(bigEndian: peer.sin_addr.s_addr))).description
        }
    }

    private func socketName(_ address: String, _ port: UInt16) throws -> sockaddr_in {
        var name = sockaddr_in()
        name.sin_family = sa_family_t(AF_INET)
        name.sin_port = port.bigEndian
        name.sin_addr.s_addr = UInt32(try #require(IPAddress(address)).value).bigEndian
        return name
    }
}

private func withName<T>(_ name: sockaddr_in, _ body: (UnsafePointer<sockaddr>, socklen_t) -> T) -> T {
    withUnsafePointer(to: name) {
        $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { body($0, socklen_t(MemoryLayout<sockaddr_in>.size)) }
    }
}

/// One thread that runs what a test's task does, so that the task may change the thread's namespaces and expectations
/// still know their test.
private final class PrivateThread: TaskExecutor {
    private struct State {
        var jobs: [UnownedJob] = []
        var ended = false
    }

    private let state = Mutex(State())
    private let semaphore: SharedFD

    init() throws {
        semaphore = SharedFD(OwnedFD(adopting: try systemCall("eventfd") { eventfd(0, Int32(EFD_SEMAPHORE)) }))
        var thread = pthread_t()
        let number = pthread_create(
            &thread, nil,
            { argument in
                guard let argument else { return nil }
                // SAFETY: retained below for this thread.
                Unmanaged<PrivateThread>.fromOpaque(argument).takeRetainedValue().work()
                return nil
            }, Unmanaged.passRetained(self).toOpaque())
        guard number == 0 else { throw KernelError("pthread_create", errno: number) }
        pthread_detach(thread)
    }

    func enqueue(_ job: consuming ExecutorJob) {
        let job = UnownedJob(job)
        state.withLock { $0.jobs.append(job) }
        eventfd_write(semaphore.raw, 1)
    }

    func end() {
        state.withLock { $0.ended = true }
        eventfd_write(semaphore.raw, 1)
    }

    private func work() {
        while true {
            var count: UInt64 = 0
            _ = eventfd_read(semaphore.raw, &count)
            let (job, ended) = state.withLock { state in
                (state.jobs.isEmpty ? nil : state.jobs.removeFirst(), state.ended)
            }
            if let job {
                job.runSynchronously(on: asUnownedTaskExecutor())
            } else if ended {
                return
            }
        }
    }
}
