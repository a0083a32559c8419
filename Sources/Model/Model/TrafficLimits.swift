/// Limits on a container's traffic on one network, which a plugin of that network keeps (CNI capability `bandwidth`).
package struct TrafficLimits: Sendable, Hashable, Codable {
    /// To the container, in bits a second; 0: as fast as it can.
    package var ingressRate: Int64
    /// What may come to it at once, in bits; 0: `burst(of:)`.
    package var ingressBurst: Int64
    /// The same of what comes from it.
    package var egressRate: Int64
    package var egressBurst: Int64

    /// What plugins take, in bits a second and in bits: a byte or more, and no more at once than 32 bits count bytes.
    package static let rates: ClosedRange<Int64> = 8...1_000_000_000_000_000
    package static let bursts: ClosedRange<Int64> = 8...(8 * Int64(UInt32.max))
    /// For all packets, also where the network card puts many together.
    private static let leastBurst: Int64 = 8 << 17

    package init(
        ingressRate: Int64 = 0, ingressBurst: Int64 = 0, egressRate: Int64 = 0, egressBurst: Int64 = 0
    ) {
        self.ingressRate = ingressRate
        self.ingressBurst = ingressBurst
        self.egressRate = egressRate
        self.egressBurst = egressBurst
    }

    package init(from decoder: any Decoder) throws {
        let values = try decoder.container(keyedBy: CodingKeys.self)
        ingressRate = try values.decode(.ingressRate, or: 0)
        ingressBurst = try values.decode(.ingressBurst, or: 0)
        egressRate = try values.decode(.egressRate, or: 0)
        egressBurst = try values.decode(.egressBurst, or: 0)
    }

    /// A tenth of a second's traffic, for a rate that came without a burst.
    private static func burst(of rate: Int64) -> Int64 { min(max(rate / 10, leastBurst), bursts.upperBound) }

    /// With a burst for each rate.
    ///
    /// - Throws: in words, what cannot be, with the member's name first.
    package func completed() throws(Problem) -> TrafficLimits {
        var limits = self
        limits.ingressBurst = try Self.burst(ingressBurst, of: ingressRate, "ingress")
        limits.egressBurst = try Self.burst(egressBurst, of: egressRate, "egress")
        guard limits.ingressRate != 0 || limits.egressRate != 0 else {
            throw Problem("ingressRate and egressRate: neither is given, and there is no limit without one")
        }
        return limits
    }

    private static func burst(_ burst: Int64, of rate: Int64, _ way: String) throws(Problem) -> Int64 {
        guard rate != 0 else {
            guard burst == 0 else { throw Problem("\(way)Burst: \(burst) has no \(way)Rate") }
            return 0
        }
        guard rates.contains(rate) else {
            throw Problem(
                "\(way)Rate: \(rate) bits a second is not between \(rates.lowerBound) and \(rates.upperBound)")
        }
        if burst == 0 { return self.burst(of: rate) }
        guard bursts.contains(burst) else {
            throw Problem("\(way)Burst: \(burst) bits is not between \(bursts.lowerBound) and \(bursts.upperBound)")
        }
        return burst
    }

    /// Reads `in=10m,out=2m,in-burst=1m,out-burst=1m`: bits a second, and bits; k, m and g are a thousand, a million and
    /// a thousand million of them.
    package init(expression: String) throws(Problem) {
        self.init()
        var seen: Set<Substring> = []
        for term in expression.split(separator: ",", omittingEmptySubsequences: false) {
            let parts = term.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            guard parts.count == 2, let number = Self.number(parts[1]) else {
                throw Problem("'\(term)' is no limit such as in=10m, with bits a second")
            }
            guard seen.insert(parts[0]).inserted else { throw Problem("\(parts[0]) is given twice") }
            switch parts[0] {
            case "in": ingressRate = number
            case "out": egressRate = number
            case "in-burst": ingressBurst = number
            case "out-burst": egressBurst = number
            default: throw Problem("'\(parts[0])' is none of in, out, in-burst and out-burst")
            }
        }
    }

    private static func number(_ text: Substring) -> Int64? {
        let units: [Character: Int64] = ["k": 1000, "m": 1_000_000, "g": 1_000_000_000]
        let unit = text.last.flatMap { units[Character($0.lowercased())] }
        let digits = unit == nil ? text : text.dropLast()
        guard !digits.isEmpty, digits.allSatisfy({ $0.isASCII && $0.isNumber }), let number = Int64(digits), number > 0
        else { return nil }
        let (bits, isBeyond) = number.multipliedReportingOverflow(by: unit ?? 1)
        return isBeyond ? nil : bits
    }

    package struct Problem: Error, CustomStringConvertible {
        package let description: String

        init(_ description: String) { self.description = description }
    }
}
