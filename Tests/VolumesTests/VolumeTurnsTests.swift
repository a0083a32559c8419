import Glibc
import Kernel
import Reactor
import Synchronization
import Testing

@testable import Volumes

@Suite(.timeLimit(.minutes(1))) struct VolumeTurnsTests {
    @Test func `who works on one volume holds up its next user, and nobody who wants another`() throws {
        let turns = VolumeTurns()
        let (isHeld, mayGo, isSecond) = (Flag(), Flag(), Flag())
        try Thread.start(name: "first") {
            try? turns.withTurn("slow") {
                isHeld.raise()
                mayGo.wait()
            }
        }
        isHeld.wait()
        #expect(try turns.withTurn("other") { 1 } == 1)
        try Thread.start(name: "second") {
            try? turns.withTurn("slow") { isSecond.raise() }
        }
        usleep(50_000)
        #expect(!isSecond.isUp)
        mayGo.raise()
        isSecond.wait()
    }
}

/// Between threads.
private final class Flag: Sendable {
    private let value = Atomic(false)

    var isUp: Bool { value.load(ordering: .acquiring) }
    func raise() { value.store(true, ordering: .releasing) }
    func wait() { while !isUp { usleep(1000) } }
}
