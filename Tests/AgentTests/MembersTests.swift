import Logging
import Model
import Synchronization
import Testing

@testable import Agent

/// Whose certificates still count on the agent's port.
@Suite struct MembersTests {
    private struct Unreachable: Error {}

    /// What the master says now; nil: nothing.
    private final class Master: Sendable {
        let nodes = Mutex<[String]?>(["n1", "n2"])
        let asked = Mutex(0)

        func members(_ freshness: Duration) -> Members {
            Members(freshness: freshness, logger: Logger(label: "test", factory: { _ in SwiftLogNoOpLogHandler() })) {
                [self] in
                asked.withLock { $0 += 1 }
                guard let nodes = nodes.withLock({ $0 }) else { throw Unreachable() }
                return nodes.map { NodeID($0) }
            }
        }
    }

    @Test func aRemovedNodeCountsNoMore() async {
        let master = Master()
        let members = master.members(.zero)
        #expect(await members.contains(NodeID("n2")))
        master.nodes.withLock { $0 = ["n1"] }
        #expect(await !members.contains(NodeID("n2")))
        #expect(await members.contains(NodeID("n1")))
    }

    @Test func aNodeThatIsNewIsAskedForAtOnce() async {
        let master = Master()
        let members = master.members(.seconds(1000))
        #expect(await members.contains(NodeID("n1")))
        #expect(await members.contains(NodeID("n2")))
        #expect(master.asked.withLock { $0 } == 1)
        master.nodes.withLock { $0 = ["n1", "n2", "n3"] }
        #expect(await members.contains(NodeID("n3")))
    }

    @Test func withoutTheMasterTheLastWordHoldsAndNobodyElseComesIn() async {
        let master = Master()
        let members = master.members(.zero)
        master.nodes.withLock { $0 = nil }
        #expect(await !members.contains(NodeID("n1")))
        master.nodes.withLock { $0 = ["n1"] }
        #expect(await members.contains(NodeID("n1")))
        master.nodes.withLock { $0 = nil }
        #expect(await members.contains(NodeID("n1")))
        #expect(await !members.contains(NodeID("n2")))
    }
}
