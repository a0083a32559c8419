import Glibc

/// A moment, in nanoseconds since 1970-01-01 00:00 UTC without leap seconds; from 1677 to 2262.
///
/// As text and in JSON it is RFC 3339 in UTC with as many fraction digits as it needs, at most nine.
package struct Timestamp: Sendable, Hashable, Comparable {
    /// Nanoseconds after 1970; negative before.
    package let nanoseconds: Int64

    /// The moment so many nanoseconds after 1970.
    package init(nanoseconds: Int64) { self.nanoseconds = nanoseconds }

    /// The wall clock's time now.
    package static func now() -> Timestamp {
        var time = timespec()
        clock_gettime(CLOCK_REALTIME, &time)
        return Timestamp(nanoseconds: Int64(time.tv_sec) &* 1_000_000_000 &+ Int64(time.tv_nsec))
    }

    /// Reads RFC 3339: `2026-01-31T08:15:30.25Z`, with any offset; a space may stand for the T. Fraction digits beyond
    /// the ninth are dropped; second 60 is the first of the next minute. Nil when it is not that, or out of range.
    package init?(rfc3339 text: String) {
        var reader = RFC3339Reader(text)
        guard let nanoseconds = reader.read() else { return nil }
        self.nanoseconds = nanoseconds
    }

    package static func < (left: Timestamp, right: Timestamp) -> Bool { left.nanoseconds < right.nanoseconds }

    /// Later by so many nanoseconds; stays at the end of the range instead of overflowing.
    package static func + (left: Timestamp, nanoseconds: Int64) -> Timestamp {
        let (sum, overflow) = left.nanoseconds.addingReportingOverflow(nanoseconds)
        return Timestamp(nanoseconds: overflow ? (nanoseconds < 0 ? .min : .max) : sum)
    }

    /// Earlier by so many nanoseconds; stays at the end of the range instead of overflowing.
    package static func - (left: Timestamp, nanoseconds: Int64) -> Timestamp {
        let (difference, overflow) = left.nanoseconds.subtractingReportingOverflow(nanoseconds)
        return Timestamp(nanoseconds: overflow ? (nanoseconds < 0 ? .max : .min) : difference)
    }

    /// The nanoseconds from the right to the left moment; stays at the end of the range instead of overflowing.
    package static func - (left: Timestamp, right: Timestamp) -> Int64 {
        let (difference, overflow) = left.nanoseconds.subtractingReportingOverflow(right.nanoseconds)
        return overflow ? (left.nanoseconds < right.nanoseconds ? .min : .max) : difference
    }

    /// Later by so many seconds; stays at the end of the range instead of overflowing.
    package func adding(seconds: Int64) -> Timestamp {
        let (nanoseconds, overflow) = seconds.multipliedReportingOverflow(by: 1_000_000_000)
        return self + (overflow ? (seconds < 0 ? .min : .max) : nanoseconds)
    }
}

extension Timestamp: CustomStringConvertible {
    package var description: String {
        var bytes: [UInt8] = []
        append(to: &bytes)
        return String(decoding: bytes, as: UTF8.self)
    }

    /// Appends the text as ASCII.
    package func append(to bytes: inout [UInt8]) {
        var (days, rest) = nanoseconds.quotientAndRemainder(dividingBy: 86_400_000_000_000)
        if rest < 0 {
            days -= 1
            rest += 86_400_000_000_000
        }
        let (year, month, day) = Self.date(days: days)
        let (seconds, fraction) = rest.quotientAndRemainder(dividingBy: 1_000_000_000)
        Self.append(year, digits: 4, to: &bytes)
        for (separator, number) in [
            (UInt8(ascii: "-"), month), (UInt8(ascii: "-"), day), (UInt8(ascii: "T"), seconds / 3600),
            (UInt8(ascii: ":"), seconds / 60 % 60), (UInt8(ascii: ":"), seconds % 60),
        ] {
            bytes.append(separator)
            Self.append(number, digits: 2, to: &bytes)
        }
        if fraction > 0 {
            bytes.append(UInt8(ascii: "."))
            Self.append(fraction, digits: 9, to: &bytes)
            while bytes.last == UInt8(ascii: "0") { bytes.removeLast() }
        }
        bytes.append(UInt8(ascii: "Z"))
    }

    private static func append(_ number: Int64, digits: Int, to bytes: inout [UInt8]) {
        var divisor: Int64 = 1
        for _ in 1..<digits { divisor *= 10 }
        while divisor > 0 {
            bytes.append(UInt8(ascii: "0") + UInt8(truncatingIfNeeded: number / divisor % 10))
            divisor /= 10
        }
    }

    /// The proleptic Gregorian date of a day counted from 1970-01-01.
    ///
    /// Years are counted from March, so that the leap day is a year's last day, in eras of 400 years.
    private static func date(days: Int64) -> (year: Int64, month: Int64, day: Int64) {
        let shifted = days + 719_468
        let era = (shifted >= 0 ? shifted : shifted - 146_096) / 146_097
        let dayOfEra = shifted - era * 146_097
        let yearOfEra = (dayOfEra - dayOfEra / 1460 + dayOfEra / 36524 - dayOfEra / 146_096) / 365
        let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
        let shiftedMonth = (5 * dayOfYear + 2) / 153
        let month = shiftedMonth < 10 ? shiftedMonth + 3 : shiftedMonth - 9
        return (
            yearOfEra + era * 400 + (month <= 2 ? 1 : 0), month, dayOfYear - (153 * shiftedMonth + 2) / 5 + 1
        )
    }

    /// The day counted from 1970-01-01 of a proleptic Gregorian date.
    fileprivate static func days(year: Int64, month: Int64, day: Int64) -> Int64 {
        let shifted = month <= 2 ? year - 1 : year
        let era = (shifted >= 0 ? shifted : shifted - 399) / 400
        let yearOfEra = shifted - era * 400
        let dayOfYear = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1
        return era * 146_097 + yearOfEra * 365 + yearOfEra / 4 - yearOfEra / 100 + dayOfYear - 719_468
    }
}

extension Timestamp: Codable {
    package init(from decoder: any Decoder) throws {
        let container = try decoder.singleValueContainer()
        let text = try container.decode(String.self)
        guard let value = Timestamp(rfc3339: text) else {
            throw DecodingError.dataCorruptedError(
                in: container, debugDescription: "expected a time such as 2026-01-31T08:15:30Z (RFC 3339)")
        }
        self = value
    }

    package func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        try container.encode(description)
    }
}

/// Reads one RFC 3339 time; single use.
private struct RFC3339Reader {
    private let bytes: [UInt8]
    private var position = 0

    init(_ text: String) { bytes = Array(text.utf8) }

    mutating func read() -> Int64? {
        guard let year = number(4), take("-"), let month = number(2), take("-"), let day = number(2),
            take("T") || take("t") || take(" "),
            let hour = number(2), take(":"), let minute = number(2), take(":"), let second = number(2),
            let fraction = fraction(), let offset = offset(), position == bytes.count,
            (1...12).contains(month), (1...Self.length(of: month, year)).contains(day),
            hour < 24, minute < 60, second <= 60
        else { return nil }
        let days = Timestamp.days(year: year, month: month, day: day)
        let seconds = days * 86_400 + hour * 3600 + minute * 60 + second - offset
        // Below zero the whole seconds may overflow although the fraction brings the sum back into range.
        let (whole, overflow) = (seconds + (seconds < 0 ? 1 : 0)).multipliedReportingOverflow(by: 1_000_000_000)
        let (sum, tooBig) = whole.addingReportingOverflow(fraction - (seconds < 0 ? 1_000_000_000 : 0))
        return overflow || tooBig ? nil : sum
    }

    private static func length(of month: Int64, _ year: Int64) -> Int64 {
        switch month {
        case 2: year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) ? 29 : 28
        case 4, 6, 9, 11: 30
        default: 31
        }
    }

    private mutating func take(_ character: Unicode.Scalar) -> Bool {
        guard position < bytes.count, bytes[position] == UInt8(ascii: character) else { return false }
        position += 1
        return true
    }

    private mutating func number(_ digits: Int) -> Int64? {
        guard position + digits <= bytes.count else { return nil }
        var value: Int64 = 0
        for byte in bytes[position..<position + digits] {
            guard (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte) else { return nil }
            value = value * 10 + Int64(byte - UInt8(ascii: "0"))
        }
        position += digits
        return value
    }

    /// Nanoseconds; 0 without a fraction, nil for a point without digits.
    private mutating func fraction() -> Int64? {
        guard take(".") else { return 0 }
        let start = position
        var value: Int64 = 0
        var scale: Int64 = 100_000_000
        while let digit = number(1) {
            value += digit * scale
            scale /= 10
        }
        return position == start ? nil : value
    }

    /// Seconds east of UTC.
    private mutating func offset() -> Int64? {
        if take("Z") || take("z") { return 0 }
        let sign: Int64
        if take("+") { sign = 1 } else if take("-") { sign = -1 } else { return nil }
        guard let hours = number(2), take(":"), let minutes = number(2), hours < 24, minutes < 60 else { return nil }
        return sign * (hours * 3600 + minutes * 60)
    }
}
