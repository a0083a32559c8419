import AgentCore
import JSON
import Kernel
import Model
import NIOCore
import NIOPosix
import Reactor
import Synchronization
import Testing
import Wire

@testable import Agent

@Suite("Waiting for tasks")
struct WaitingTests {
    private func record(_ message: String) -> TaskRecord {
        let assignment = TaskAssignment(
            task: TaskID("t"), instance: InstanceID("i"), instanceName: "web", containers: [ContainerID("c")],
            workload: WorkloadID("w"), workloadName: "web", kind: .container, labels: [:], revision: 1, epoch: 1,
            desired: .running, generation: 1, stop: nil, pod: PodSpec(containers: []), ports: [])
        var record = TaskRecord(assignment, bootID: "b")
        record.message = message
        return record
    }

    @Test("A waiter sees the state there is, then each change")
    func changes() async throws {
        let table = TaskTable()
        table.put(record("one"))
        #expect(try await table.wait(TaskID("t"), atMost: .seconds(60)) { $0?.message } == "one")
        async let second = table.wait(TaskID("t"), atMost: .seconds(60)) { $0?.message == "two" ? true : nil }
        table.put(record("two"))
        #expect(try await second == true)
        async let gone = table.wait(TaskID("t"), atMost: .seconds(60)) { $0 == nil ? true : nil }
        table.remove(TaskID("t"))
        #expect(try await gone == true)
    }

    @Test("A waiter gives up at its limit")
    func limit() async throws {
        let table = TaskTable()
        #expect(try await table.wait(TaskID("t"), atMost: .milliseconds(20)) { _ -> Bool? in nil } == nil)
    }

    private final class Flag: Sendable {
        private let value = Atomic(false)

        var isSet: Bool { value.load(ordering: .relaxed) }

        func set() { value.store(true, ordering: .relaxed) }
    }

    @Test("A start waits until those who wanted to see its first byte have joined")
    func gate() async {
        let gate = AttachGate()
        await gate.open(TaskID("nobody waits"))
        let ticket = gate.enter(TaskID("t"))
        let joined = Flag()
        await withTaskGroup(of: Void.self) { group in
            group.addTask {
                for await _ in ticket.made {}
                joined.set()
                ticket.joined()
            }
            await gate.open(TaskID("t"))
        }
        #expect(joined.isSet)
    }

    @Test("A client that went away holds no start up")
    func abandoned() async {
        let gate = AttachGate()
        do { _ = gate.enter(TaskID("t")) }
        await gate.open(TaskID("t"))
    }

    @Test("The timer calls back for a moment that has passed, and for the last one that was set")
    func timer() async throws {
        let reactor = try Reactor()
        defer { reactor.shutdown() }
        let timer = try WakeTimer(reactor)
        let (ticks, tick) = AsyncStream<Void>.makeStream()
        await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask { try await timer.run { tick.yield() } }
            var iterator = ticks.makeAsyncIterator()
            timer.set(Timestamp.now() - 5_000_000_000)
            await iterator.next()
            timer.set(Timestamp.now() + 3_600_000_000_000)
            timer.set(Timestamp.now() + 10_000_000)
            await iterator.next()
            group.cancelAll()
        }
    }
}

@Suite("What probes said")
struct ProbeLogTests {
    @Test("The newest five of each task are kept, oldest first, until it goes")
    func newest() {
        let log = ProbeLog()
        let now = Timestamp(nanoseconds: 1)
        for code in 0..<7 {
            log.note(ProbeResult(start: now, end: now, exitCode: code, output: ""), of: TaskID("t"))
        }
        #expect(log[TaskID("t")].map(\.exitCode) == [2, 3, 4, 5, 6])
        #expect(log[TaskID("other")].isEmpty)
        log.forget(TaskID("t"))
        #expect(log[TaskID("t")].isEmpty)
    }
}

@Suite("Probes over the network")
struct NetworkProbeTests {
    /// A server that answers everything with these bytes, and its port.
    private func withServer(_ answer: String, _ body: (Int) async throws -> Void) async throws {
        let server = try await ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(Answering(answer))
                }
            }
            .bind(host: "127.0.0.1", port: 0).get()
        try await body(server.localAddress?.port ?? 0)
        try await server.close()
    }

    private final class Answering: ChannelInboundHandler {
        typealias InboundIn = ByteBuffer
        typealias OutboundOut = ByteBuffer
        private let answer: String

        init(_ answer: String) { self.answer = answer }

        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            context.writeAndFlush(wrapOutboundOut(ByteBuffer(string: answer)), promise: nil)
        }
    }

    @Test(
        "A status of 200 to 399 is healthy",
        arguments: [
            ("HTTP/1.1 200 OK\r\n\r\n", true), ("HTTP/1.0 302 Found\r\n\r\n", true), ("HTTP/1.1 404 No\r\n\r\n", false),
        ]
    )
    func http(answer: String, healthy: Bool) async throws {
        try await withServer(answer) { port in
            let outcome = try await NetworkProbe(host: "127.0.0.1", port: port).get("index.html")
            #expect((outcome == .success) == healthy)
        }
    }

    @Test("What does not speak HTTP is not healthy, but takes a connection")
    func other() async throws {
        try await withServer("SSH-2.0\r\n") { port in
            let probe = NetworkProbe(host: "127.0.0.1", port: port)
            let answer = try await probe.get("/")
            #expect(answer == .failure("what listens does not speak HTTP"))
            let connection = try await probe.connect()
            #expect(connection == .success)
        }
    }

    @Test("A port where nobody listens says so")
    func refused() async throws {
        let outcome = try await NetworkProbe(host: "127.0.0.1", port: 1).connect()
        #expect(outcome == .failure("cannot connect to 127.0.0.1 port 1: Connection refused"))
    }
}
