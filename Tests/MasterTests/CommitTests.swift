import JSON
import Kernel
import Logging
import MasterCore
import Model
import Storage
import Synchronization
import Testing
import Wire

@testable import Master

/// What becomes of a transaction whose store fails, and of the master with it.
@Suite(.timeLimit(.minutes(1))) struct CommitTests {
    /// A master over a store that can be made to fail, for as long as `work` takes.
    ///
    /// - Returns: why the master ended by itself; nil: it did not.
    @discardableResult
    private func withMaster(
        _ work: @escaping @Sendable (ClusterMaster, FaultyStore) async throws -> Void
    ) async throws -> MasterFailure? {
        let place = "/tmp/martlet-master-\(UInt64.random(in: 0...UInt64.max))"
        try File.makeDirectories(place, mode: 0o700)
        defer { _ = try? Tree.remove(place) }
        var logger = Logger(label: "test")
        logger.logLevel = .critical
        let store = FaultyStore(try SQLiteStore(path: "\(place)/martlet.db"))
        let master = try await ClusterMaster(
            store: store, vault: SecretVault(keyFile: "\(place)/secrets.key"), logger: logger)
        let running = Task { try await master.run() }
        while await master.clusterID.isEmpty { try await Task.sleep(for: .milliseconds(5)) }
        do {
            try await Subject.$current.withValue(.local(uid: 0)) { try await work(master, store) }
        } catch {
            running.cancel()
            throw error
        }
        // One that ends by itself has done so by now, or is about to; one that does not would run for ever.
        let patience = Task {
            try await Task.sleep(for: .milliseconds(200))
            running.cancel()
        }
        defer { patience.cancel() }
        do {
            try await running.value
            return nil
        } catch let failure as MasterFailure {
            return failure
        }
    }

    private static func registration(_ name: String) -> MasterCommand {
        .registerNode(
            NodeRegistration(
                node: Node(
                    id: NodeID(name), name: name, platform: Platform(os: "linux", architecture: "amd64"),
                    capacity: Resources(cpu: 1_000_000_000, memory: 1 << 30), address: "127.0.0.1",
                    streamEndpoint: "unix:/run/agent.sock", agentVersion: "1", kernelVersion: "6", bootID: "b",
                    createdAt: .now())))
    }

    private static func nodes(_ master: ClusterMaster) async throws -> [String] {
        guard case .nodes(let views) = try await master.query(.nodes) else { throw APIProblem.unexpected }
        return views.map(\.node.name).sorted()
    }

    private static func refusal(_ master: ClusterMaster, _ command: MasterCommand) async -> String? {
        do {
            _ = try await master.perform(command)
            return nil
        } catch {
            return error.message
        }
    }

    @Test("After an unknown outcome the master goes on with what the store really holds", arguments: [true, false])
    func unknownOutcome(written: Bool) async throws {
        let failure = try await withMaster { master, store in
            store.failNext(.unavailable("it hangs"), written: written)
            let refusal = await Self.refusal(master, Self.registration("one"))
            #expect(refusal?.contains("the outcome is unknown: it hangs") == true)
            #expect(try await Self.nodes(master) == (written ? ["one"] : []))
            _ = try await master.perform(Self.registration("one"))
            _ = try await master.perform(Self.registration("two"))
            #expect(try await Self.nodes(master) == ["one", "two"])
        }
        #expect(failure == nil)
    }

    @Test("A full disk changes nothing, and is over when there is space")
    func full() async throws {
        let failure = try await withMaster { master, store in
            store.failNext(.full("no space"), written: false)
            let refusal = await Self.refusal(master, Self.registration("one"))
            #expect(refusal?.contains("nothing was changed") == true)
            #expect(try await Self.nodes(master) == [])
            _ = try await master.perform(Self.registration("one"))
            #expect(try await Self.nodes(master) == ["one"])
        }
        #expect(failure == nil)
    }

    @Test("A master whose disk fails ends, and says what it does not know", arguments: [true, false])
    func failedDisk(written: Bool) async throws {
        let failure = try await withMaster { master, store in
            store.failNext(.failed(path: "/store", "input/output error"), written: written)
            let refusal = await Self.refusal(master, Self.registration("one"))
            #expect(refusal?.contains("the outcome is unknown: input/output error") == true)
            let later = await Self.refusal(master, Self.registration("two"))
            #expect(later == "the master has lost its store and ends")
        }
        #expect(failure?.description.contains("the disk under the store /store failed") == true)
    }
}

/// A store that fails when it is told to, before or after it has done what was asked.
private final class FaultyStore: Store {
    private let store: SQLiteStore
    private let fault = Mutex<(error: StoreError, written: Bool)?>(nil)

    init(_ store: SQLiteStore) { self.store = store }

    func failNext(_ error: StoreError, written: Bool) { fault.withLock { $0 = (error, written) } }

    func transaction(
        _ comparisons: [StoreComparison], then: [StoreOperation], otherwise: [StoreOperation]
    ) async throws -> StoreResult {
        let due = fault.withLock { fault in
            defer { fault = nil }
            return fault
        }
        if let due, !due.written { throw due.error }
        let result = try await store.transaction(comparisons, then: then, otherwise: otherwise)
        if let due { throw due.error }
        return result
    }

    func get(_ key: String) async throws -> StoreEntry? { try await store.get(key) }
    func range(prefix: String, limit: Int?) async throws -> (entries: [StoreEntry], revision: Int64) {
        try await store.range(prefix: prefix, limit: limit)
    }
    func watch(prefix: String, from revision: Int64) async throws -> AsyncThrowingStream<StoreBatch, any Error> {
        try await store.watch(prefix: prefix, from: revision)
    }
    func grantLease(seconds: Int) async throws -> StoreLease { try await store.grantLease(seconds: seconds) }
    func keepAlive(_ lease: StoreLease) async throws { try await store.keepAlive(lease) }
    func revoke(_ lease: StoreLease) async throws { try await store.revoke(lease) }
    func compact(_ revision: Int64) async throws { try await store.compact(revision) }
}
