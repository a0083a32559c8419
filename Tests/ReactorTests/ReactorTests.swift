import CKernel
import Glibc
import Kernel
import Reactor
import Testing

/// A pipe whose read end does not block.
private func makePipe() throws -> (read: SharedFD, write: SharedFD) {
    var ends: [Int32] = [-1, -1]
    try systemCall("pipe2") { pipe2(&ends, O_CLOEXEC | O_NONBLOCK) }
    return (SharedFD(OwnedFD(adopting: ends[0])), SharedFD(OwnedFD(adopting: ends[1])))
}

private func write(_ descriptor: SharedFD, _ bytes: [UInt8] = [1]) throws {
    try Descriptor.writeAll(descriptor.raw, bytes)
}

/// Waits, yielding, until `condition` holds; the test's own time limit ends a wait that is never over.
private func eventually(_ condition: () -> Bool) async throws {
    while !condition() { try await Task.sleep(for: .milliseconds(1)) }
}

@Suite(.timeLimit(.minutes(1))) struct ReactorTests {
    @Test func `a wait ends when bytes arrive, and at once when they are there`() async throws {
        let reactor = try Reactor()
        let pipe = try makePipe()
        async let waiting: Void = reactor.waitReadable(pipe.read.raw)
        try await eventually { reactor.waits == 1 }
        try write(pipe.write)
        try await waiting
        try await reactor.waitReadable(pipe.read.raw)
        #expect(reactor.waits == 0)
    }

    @Test func `end of file counts as readable`() async throws {
        let reactor = try Reactor()
        var pipe: (read: SharedFD, write: SharedFD)? = try makePipe()
        let read = try #require(pipe).read
        async let waiting: Void = reactor.waitReadable(read.raw)
        try await eventually { reactor.waits == 1 }
        pipe = nil
        try await waiting
    }

    @Test func `a full pipe becomes writable when it is read`() async throws {
        let reactor = try Reactor()
        let pipe = try makePipe()
        let chunk = [UInt8](repeating: 0, count: 4096)
        while Glibc.write(pipe.write.raw, chunk, chunk.count) > 0 {}
        async let waiting: Void = reactor.waitWritable(pipe.write.raw)
        try await eventually { reactor.waits == 1 }
        var buffer = [UInt8](repeating: 0, count: 1 << 20)
        #expect(Glibc.read(pipe.read.raw, &buffer, buffer.count) > 0)
        try await waiting
    }

    @Test func `several tasks may wait for one descriptor, in both directions`() async throws {
        let reactor = try Reactor()
        var ends: [Int32] = [-1, -1]
        try systemCall("socketpair") { socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0, &ends) }
        let (ours, theirs) = (SharedFD(OwnedFD(adopting: ends[0])), SharedFD(OwnedFD(adopting: ends[1])))
        async let first: Void = reactor.waitReadable(ours.raw)
        async let second: Void = reactor.waitReadable(ours.raw)
        try await reactor.waitWritable(ours.raw)
        try await eventually { reactor.waits == 2 }
        try write(theirs)
        try await first
        try await second
    }

    @Test func `cancellation ends a wait, before and after it began`() async throws {
        let reactor = try Reactor()
        let pipe = try makePipe()
        let late = Task { try await reactor.waitReadable(pipe.read.raw) }
        try await eventually { reactor.waits == 1 }
        late.cancel()
        await #expect(throws: CancellationError.self) { try await late.value }
        let early = Task {
            withUnsafeCurrentTask { $0?.cancel() }
            try await reactor.waitReadable(pipe.read.raw)
        }
        await #expect(throws: CancellationError.self) { try await early.value }
        #expect(reactor.waits == 0)
    }

    @Test func `shutdown ends every wait and refuses new ones`() async throws {
        let reactor = try Reactor()
        let pipe = try makePipe()
        let waiting = Task { try await reactor.waitReadable(pipe.read.raw) }
        try await eventually { reactor.waits == 1 }
        reactor.shutdown()
        await #expect(throws: ReactorError.closed) { try await waiting.value }
        await #expect(throws: ReactorError.closed) { try await reactor.waitReadable(pipe.read.raw) }
    }

    @Test func `a wait is not confused by its descriptor being closed and the number used again`() async throws {
        let reactor = try Reactor()
        var first: (read: SharedFD, write: SharedFD)? = try makePipe()
        let number = try #require(first).read.raw
        let write = try #require(first).write
        let waiting = Task { try await reactor.waitReadable(number) }
        try await eventually { reactor.waits == 1 }
        first = nil
        let second = try makePipe()
        try Descriptor.writeAll(second.write.raw, [1])
        #expect(reactor.waits == 1)
        try Descriptor.writeAll(write.raw, [1])
        try await waiting.value
    }

    @Test func `a regular file is always ready, a number that is no descriptor is an error`() async throws {
        let reactor = try Reactor()
        let file = SharedFD(try File.open("/etc/passwd", O_RDONLY))
        try await reactor.waitReadable(file.raw)
        let error = await #expect(throws: KernelError.self) { try await reactor.waitReadable(1_000_000) }
        #expect(error?.errno == EBADF)
    }

    @Test func `children are reaped with their exit code or signal`() async throws {
        let reactor = try Reactor()
        let normal = try Spawn("/bin/sh", ["sh", "-c", "exit 7"]).start()
        #expect(try await reactor.waitExit(normal.pidfd.raw) == .exited(7))
        let killed = try Spawn("/bin/sleep", ["sleep", "100"]).start()
        try killed.signal(SIGKILL)
        #expect(try await reactor.waitExit(killed.pidfd.raw) == .signaled(SIGKILL))
        let pidfd = killed.pidfd.raw
        let error = await #expect(throws: KernelError.self) { try await reactor.waitExit(pidfd) }
        #expect(error?.errno == ECHILD)
    }

    @Test func `thousands of waits that race with cancellation all end once and leak nothing`() async throws {
        let reactor = try Reactor()
        let pipe = try makePipe()
        try await withThrowingTaskGroup(of: Void.self) { group in
            for index in 0..<2000 {
                group.addTask {
                    let task = Task { try await reactor.waitReadable(pipe.read.raw) }
                    if index % 2 == 0 { task.cancel() }
                    do { try await task.value } catch is CancellationError {}
                }
                if index == 1000 { try Descriptor.writeAll(pipe.write.raw, [1]) }
            }
            try await group.waitForAll()
        }
        #expect(reactor.waits == 0)
    }

    @Test func `a reactor that nobody holds stops its thread and closes its descriptors`() async throws {
        let before = try openDescriptors(to: "eventpoll")
        for _ in 0..<20 { _ = try Reactor() }
        while try openDescriptors(to: "eventpoll") > before { try await Task.sleep(for: .milliseconds(1)) }
    }

    /// Other suites run beside this one, so only growth that lasts would hang the test into its time limit.
    private func openDescriptors(to kind: String) throws -> Int {
        var count = 0
        for name in try File.list("/proc/self/fd") {
            var buffer = [CChar](repeating: 0, count: 256)
            guard readlink("/proc/self/fd/\(name)", &buffer, buffer.count - 1) > 0 else { continue }
            let target = String(decoding: buffer.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
            if target.contains(kind) { count += 1 }
        }
        return count
    }
}
