import JSON

/// A random source with a seed (SplitMix64): the same seed gives the same run.
struct SeededRandom: RandomNumberGenerator {
    private var state: UInt64

    init(seed: UInt64) { state = seed &* 0x9E37_79B9_7F4A_7C15 &+ 0xD1B5_4A32_D192_ED03 }

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var mixed = state
        mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
        return mixed ^ (mixed >> 31)
    }

    mutating func chance(_ probability: Double) -> Bool { Double.random(in: 0..<1, using: &self) < probability }

    /// A time in nanoseconds.
    mutating func milliseconds(_ range: ClosedRange<Int64>) -> Int64 {
        Int64.random(in: range, using: &self) * 1_000_000
    }
}

/// What is to happen, in the order of its time; what has the same time, in the order in which it was planned.
struct Agenda {
    private struct Entry {
        let time: Int64
        let number: UInt64
        let action: () -> Void
    }

    private var heap: [Entry] = []
    private var planned: UInt64 = 0

    var isEmpty: Bool { heap.isEmpty }

    mutating func add(at time: Int64, _ action: @escaping () -> Void) {
        planned += 1
        heap.append(Entry(time: time, number: planned, action: action))
        var child = heap.count - 1
        while child > 0 {
            let parent = (child - 1) / 2
            guard Self.isBefore(heap[child], heap[parent]) else { break }
            heap.swapAt(child, parent)
            child = parent
        }
    }

    /// Takes the next action that is due at `limit` at the latest.
    mutating func next(until limit: Int64) -> (time: Int64, action: () -> Void)? {
        guard let first = heap.first, first.time <= limit else { return nil }
        let last = heap.removeLast()
        if !heap.isEmpty {
            heap[0] = last
            var parent = 0
            while true {
                var smallest = parent
                for child in [2 * parent + 1, 2 * parent + 2]
                where child < heap.count && Self.isBefore(heap[child], heap[smallest]) {
                    smallest = child
                }
                if smallest == parent { break }
                heap.swapAt(parent, smallest)
                parent = smallest
            }
        }
        return (first.time, first.action)
    }

    private static func isBefore(_ left: Entry, _ right: Entry) -> Bool {
        left.time != right.time ? left.time < right.time : left.number < right.number
    }
}

/// The clock and agenda that all simulated parts share.
final class World {
    private(set) var now: Int64 = 1_800_000_000 * 1_000_000_000
    private var agenda = Agenda()
    var random: SeededRandom
    /// Faults of all kinds happen.
    var hasFaults = true
    /// What was found to be wrong; the run ends with the first.
    private(set) var violations: [String] = []
    private(set) var trace: [String] = []
    /// How often what happened, over all runs that share it.
    let tally: Tally

    init(seed: UInt64, tally: Tally = Tally()) {
        random = SeededRandom(seed: seed)
        self.tally = tally
    }

    var timestamp: Timestamp { Timestamp(nanoseconds: now) }

    func after(_ delay: Int64, _ action: @escaping () -> Void) { agenda.add(at: now + max(0, delay), action) }

    func at(_ moment: Timestamp, _ action: @escaping () -> Void) {
        agenda.add(at: max(now, moment.nanoseconds), action)
    }

    /// Lets time pass.
    func run(seconds: Double) {
        let end = now + Int64(seconds * 1e9)
        while violations.isEmpty, let (time, action) = agenda.next(until: end) {
            now = max(now, time)
            action()
        }
        now = end
    }

    func violate(_ text: String) {
        violations.append(text)
        note("VIOLATION: \(text)")
    }

    /// Keeps the last lines of what happened, for a failure's message.
    func note(_ text: @autoclosure () -> String) {
        trace.append("\(now / 1_000_000 % 10_000_000) \(text())")
        if trace.count > 400 { trace.removeFirst(200) }
    }

    /// A fault of this probability, while there are faults at all.
    func fault(_ probability: Double) -> Bool { hasFaults && random.chance(probability) }
}

/// Counts what happened, so that a simulation in which nothing does is found out.
final class Tally {
    private(set) var counts: [String: Int] = [:]

    func count(_ what: String) { counts[what, default: 0] += 1 }
}
