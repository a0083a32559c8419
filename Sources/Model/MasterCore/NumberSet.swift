/// A set of small numbers as bits, which takes no memory for what lies behind its highest.
struct NumberSet: Sendable, Hashable {
    private var words: [UInt64] = []

    subscript(number: Int) -> Bool {
        get { word(number >> 6) & Self.bit(number) != 0 }
        set {
            let index = number >> 6
            if newValue {
                if index >= words.count { words += Array(repeating: 0, count: index + 1 - words.count) }
                words[index] |= Self.bit(number)
            } else if index < words.count {
                words[index] &= ~Self.bit(number)
            }
        }
    }

    private static func bit(_ number: Int) -> UInt64 { 1 << UInt64(number & 63) }

    private func word(_ index: Int) -> UInt64 { index < words.count ? words[index] : 0 }

    /// The first number of `range` that is in none of the sets, from `start` on and then from the range's beginning; 64
    /// of them are looked at in one step.
    static func firstInNone(of sets: [NumberSet], in range: ClosedRange<Int>, from start: Int) -> Int? {
        let start = range.contains(start) ? start : range.lowerBound
        return firstInNone(of: sets, start, range.upperBound) ?? firstInNone(of: sets, range.lowerBound, start - 1)
    }

    private static func firstInNone(of sets: [NumberSet], _ first: Int, _ last: Int) -> Int? {
        var next = first
        while next <= last {
            var free = ~UInt64(0) << UInt64(next & 63)
            for set in sets { free &= ~set.word(next >> 6) }
            if free != 0 {
                let found = next & ~63 | free.trailingZeroBitCount
                return found <= last ? found : nil
            }
            next = (next | 63) + 1
        }
        return nil
    }
}
