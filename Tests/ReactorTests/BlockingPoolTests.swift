import Glibc
import Kernel
import Reactor
import Synchronization
import Testing

/// Holds bodies until it is opened.
private final class Gate: Sendable {
    private let pipe: (read: SharedFD, write: SharedFD)
    let passed = Mutex(0)

    init() throws {
        var ends: [Int32] = [-1, -1]
        try systemCall("pipe") { Glibc.pipe(&ends) }
        pipe = (SharedFD(OwnedFD(adopting: ends[0])), SharedFD(OwnedFD(adopting: ends[1])))
    }

    /// Blocks the thread until `open(count)` lets it through.
    func wait() {
        var byte: UInt8 = 0
        _ = Glibc.read(pipe.read.raw, &byte, 1)
        passed.withLock { $0 += 1 }
    }

    func open(_ count: Int) throws {
        try Descriptor.writeAll(pipe.write.raw, [UInt8](repeating: 0, count: count))
    }
}

@Suite(.timeLimit(.minutes(1))) struct BlockingPoolTests {
    private func eventually(_ condition: () -> Bool) async throws {
        while !condition() { try await Task.sleep(for: .milliseconds(1)) }
    }

    @Test func `values and errors come back`() async throws {
        let pool = try BlockingPool(threads: 2)
        #expect(try await pool.run { 41 + 1 } == 42)
        await #expect(throws: KernelError.self) { try await pool.run { try File.read("/nonexistent") } }
    }

    @Test func `as many bodies run at once as there are threads, and no more`() async throws {
        let pool = try BlockingPool(threads: 3, queue: 10)
        let gate = try Gate()
        try await withThrowingTaskGroup(of: Void.self) { group in
            for _ in 0..<8 { group.addTask { try await pool.run { gate.wait() } } }
            try await eventually { pool.load == (3, 5) }
            try gate.open(8)
            try await group.waitForAll()
        }
        #expect(gate.passed.withLock { $0 } == 8)
        try await eventually { pool.load == (0, 0) }
    }

    @Test func `a full queue is refused by name, and takes bodies again later`() async throws {
        let pool = try BlockingPool(threads: 1, queue: 2)
        let gate = try Gate()
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask { try await pool.run { gate.wait() } }
            try await eventually { pool.load == (1, 0) }
            for _ in 0..<2 { group.addTask { try await pool.run { gate.wait() } } }
            try await eventually { pool.load == (1, 2) }
            await #expect(throws: BlockingPoolError.full(queue: 2)) { try await pool.run {} }
            try gate.open(3)
            try await group.waitForAll()
        }
        try await pool.run {}
    }

    @Test func `a body that waits is dropped by cancellation, one that runs is not`() async throws {
        let pool = try BlockingPool(threads: 1)
        let gate = try Gate()
        let running = Task { try await pool.run { gate.wait() } }
        try await eventually { pool.load == (1, 0) }
        let waiting = Task { try await pool.run { gate.wait() } }
        try await eventually { pool.load == (1, 1) }
        waiting.cancel()
        await #expect(throws: CancellationError.self) { try await waiting.value }
        running.cancel()
        try gate.open(1)
        try await running.value
        #expect(gate.passed.withLock { $0 } == 1)
        #expect(try await pool.run { true }, "the pool works on after the dropped body")
    }

    @Test func `shutdown drops what waits, lets what runs end, and refuses the rest`() async throws {
        let pool = try BlockingPool(threads: 1)
        let gate = try Gate()
        let running = Task { try await pool.run { gate.wait() } }
        try await eventually { pool.load == (1, 0) }
        let waiting = Task { try await pool.run {} }
        try await eventually { pool.load == (1, 1) }
        let stopping = Task { await pool.shutdown() }
        await #expect(throws: BlockingPoolError.closed) { try await waiting.value }
        await #expect(throws: BlockingPoolError.closed) { try await pool.run {} }
        try gate.open(1)
        try await running.value
        await stopping.value
        await pool.shutdown()
    }

    @Test func `blocked bodies do not keep the cooperative pool from working`() async throws {
        let pool = try BlockingPool(threads: 64)
        let gate = try Gate()
        try await withThrowingTaskGroup(of: Void.self) { group in
            for _ in 0..<64 { group.addTask { try await pool.run { gate.wait() } } }
            try await eventually { pool.load.running == 64 }
            #expect(await Task.detached { 1 }.value == 1)
            try gate.open(64)
            try await group.waitForAll()
        }
    }
}
