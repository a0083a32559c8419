/// The network between a machine and the master. What is sent while a direction is cut waits, and arrives when it is
/// mended, unless its connection has been given up by then.
final class Link {
    enum Direction: Hashable, CaseIterable { case up, down }

    private(set) var cut: Set<Direction> = []
    private var held: [(direction: Direction, deliver: () -> Void)] = []

    func isCut(_ direction: Direction) -> Bool { cut.contains(direction) }

    func cut(_ directions: Set<Direction>) { cut.formUnion(directions) }

    /// Delivers everything that waits, in its order.
    func mend() {
        cut = []
        let waiting = held
        held = []
        for message in waiting { message.deliver() }
    }

    func deliver(_ direction: Direction, _ message: @escaping () -> Void) {
        if cut.contains(direction) { held.append((direction, message)) } else { message() }
    }
}
