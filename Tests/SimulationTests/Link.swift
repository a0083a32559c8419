/// The network between a machine and the master. What is sent while a direction is cut waits, and arrives when it is
/// mended, unless its connection has been given up by then.
final class Link {
    enum Direction: Hashable, CaseIterable { case up, down }

    /// What goes over one connection and keeps its order: the watch, and posts with their answers, which are others.
    enum Stream: Int, CaseIterable {
        case posts, answers, watch

        var direction: Direction { self == .posts ? .up : .down }
    }

    private let world: World
    private(set) var cut: Set<Direction> = []
    private var held: [Stream: [() -> Void]] = [:]
    /// What waits for its sender's next try: the direction is there again.
    private var late: Set<Stream> = []

    init(_ world: World) { self.world = world }

    func isCut(_ direction: Direction) -> Bool { cut.contains(direction) }

    func cut(_ directions: Set<Direction>) { cut.formUnion(directions) }

    /// Lets everything pass again. What waits comes in its order, of each stream when its connection tries again.
    func mend() {
        cut = []
        for stream in Stream.allCases where held[stream] != nil && !late.contains(stream) {
            late.insert(stream)
            world.after(world.random.milliseconds(0...2000)) { [weak self] in self?.tryAgain(stream) }
        }
    }

    private func tryAgain(_ stream: Stream) {
        late.remove(stream)
        guard !cut.contains(stream.direction) else { return }
        for message in held.removeValue(forKey: stream) ?? [] { message() }
    }

    func deliver(_ stream: Stream, _ message: @escaping () -> Void) {
        guard cut.contains(stream.direction) || late.contains(stream) else { return message() }
        held[stream, default: []].append(message)
    }
}
