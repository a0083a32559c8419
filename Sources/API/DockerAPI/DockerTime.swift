import JSON

/// Times as Docker's clients write them.
enum DockerTime {
    /// How a refusal says what would do.
    static let forms = "write seconds since 1970, a time as 2026-01-31T08:15:30Z, or how long ago it was as 1h30m"

    /// A moment: RFC 3339, seconds since 1970 with or without a fraction, or how long ago: `10m`, `1h30m`.
    ///
    /// - Returns: nil for anything else, and beyond the years that Docker's clients write.
    static func moment(_ text: String) -> Timestamp? {
        if let time = Timestamp(rfc3339: text) ?? seconds(text) { return time }
        return span(text).map { Timestamp.now() - $0 }
    }

    private static func seconds(_ text: String) -> Timestamp? {
        let parts = text.split(separator: ".", maxSplits: 1, omittingEmptySubsequences: false)
        let fraction = parts.count == 2 ? String(parts[1]) : "0"
        guard let seconds = Int64(parts[0]), (-8_999_999_999...8_999_999_999).contains(seconds),
            fraction.utf8.count <= 9,
            let nanoseconds = Int64(fraction + String(repeating: "0", count: 9 - fraction.utf8.count)), nanoseconds >= 0
        else { return nil }
        return Timestamp(nanoseconds: seconds * 1_000_000_000 + nanoseconds)
    }

    /// Nanoseconds of `1h30m`, `5s`, `100ms`; nil for anything else, and for more than an integer holds.
    static func span(_ text: String) -> Int64? {
        let units: [(String, Int64)] = [
            ("ms", 1_000_000), ("us", 1000), ("ns", 1), ("h", 3_600_000_000_000), ("m", 60_000_000_000),
            ("s", 1_000_000_000),
        ]
        var rest = text[...]
        var sum: Int64 = 0
        repeat {
            let digits = rest.prefix { $0.isASCII && $0.isNumber }
            rest = rest.dropFirst(digits.count)
            guard digits.count <= 9, let number = Int64(digits), let unit = units.first(where: { rest.hasPrefix($0.0) })
            else { return nil }
            let (part, overflow) = number.multipliedReportingOverflow(by: unit.1)
            guard !overflow, sum <= .max - part else { return nil }
            sum += part
            rest = rest.dropFirst(unit.0.count)
        } while !rest.isEmpty
        return sum
    }
}
