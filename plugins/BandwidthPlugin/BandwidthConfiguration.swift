import CNIPlugin
import CNISpec
import JSON
import Netlink

/// What `bandwidth` is told to do: its part of a network configuration, see plugins/README.md.
struct BandwidthConfiguration: Sendable {
    /// For what goes to the container; nil: as fast as it can.
    let ingress: TokenBucket?
    /// For what comes from the container.
    let egress: TokenBucket?
    /// What plugins before this one made, and at CHECK this one too.
    let previous: CNIResult?

    /// In bits a second: from one byte to what Kubernetes takes.
    static let rates: ClosedRange<UInt64> = 8...1_000_000_000_000_000
    /// In bits: the kernel counts a bucket's bytes in 32 bits.
    static let bursts: ClosedRange<UInt64> = 8...(8 * UInt64(UInt32.max))
    /// Beyond the bucket's size so much of a second's traffic may wait: 25 ms, as with the reference plugin.
    private static let latencyFraction: UInt64 = 40

    private static let limits: Set<String> = ["ingressRate", "ingressBurst", "egressRate", "egressBurst"]

    init(_ call: PluginCall) throws(CNIError) {
        let known = PluginCall.commonMembers.union(Self.limits).union(["runtimeConfig"])
        try call.rejectUnknown(call.configuration, known: known)
        previous = try Self.previous(call)
        var parts: [(reader: JSONReader, known: Set<String>)] = []
        do throws(JSONError) {
            var source = call.configuration
            if let runtime = try source.optionalObject("runtimeConfig") {
                parts.append((runtime, ["bandwidth"]))
                if let asked = try runtime.optionalObject("bandwidth") {
                    parts.append((asked, Self.limits))
                    // What the administrator wrote is what holds, as with the reference plugin.
                    if try !Self.hasLimit(source) { source = asked }
                }
            }
            ingress = try Self.bucket(source, "ingressRate", "ingressBurst")
            egress = try Self.bucket(source, "egressRate", "egressBurst")
        } catch {
            throw CNIError(code: CNIError.invalidConfiguration, message: error.description)
        }
        for part in parts { try call.rejectUnknown(part.reader, known: part.known) }
        try call.rejectUnknownArguments(known: [PluginCall.endArgument])
    }

    /// What plugins before made, and this one too.
    private static func previous(_ call: PluginCall) throws(CNIError) -> CNIResult? {
        do throws(JSONError) {
            return try call.configuration.optionalObject("prevResult").map { member throws(JSONError) in
                try CNIResult(member, version: nil)
            }
        } catch {
            throw CNIError(code: CNIError.invalidConfiguration, message: error.description)
        }
    }

    /// In words, the burst in which no packet of the device's MTU has room, so that none would ever pass; nil: all do.
    func whatIsTooSmall(for device: Link) -> String? {
        // With Ethernet's header.
        let least = UInt64(device.mtu) + 14
        for case (let key, let bucket?) in [("ingressBurst", ingress), ("egressBurst", egress)]
        where bucket.burst < least {
            return "\(key) is \(8 * UInt64(bucket.burst)) bits: no packet of \(device.name)'s MTU \(device.mtu) would "
                + "ever pass: give it \(8 * least) or more"
        }
        return nil
    }

    private static func hasLimit(_ reader: JSONReader) throws(JSONError) -> Bool {
        for key in limits where try reader.optional(key) != nil { return true }
        return false
    }

    /// A rate and a burst that belong together; both 0 or absent: no limit.
    private static func bucket(
        _ reader: JSONReader, _ rateKey: String, _ burstKey: String
    ) throws(JSONError) -> TokenBucket? {
        let rate = try reader.optionalUInt64(rateKey) ?? 0
        let burst = try reader.optionalUInt64(burstKey) ?? 0
        if rate == 0, burst == 0 { return nil }
        guard rate != 0 else {
            throw reader.error(.missing, rateKey, "\(burstKey) is \(burst): a burst needs a rate")
        }
        guard burst != 0 else {
            throw reader.error(.missing, burstKey, "\(rateKey) is \(rate): a rate needs a burst, or nothing passes")
        }
        for (key, value, range, unit) in [(rateKey, rate, rates, "bits a second"), (burstKey, burst, bursts, "bits")]
        where !range.contains(value) {
            throw reader.error(
                .type, key, "\(value) is not between \(range.lowerBound) and \(range.upperBound) \(unit)")
        }
        let bytes = burst / 8
        let limit = min(rate / 8 / latencyFraction + bytes, UInt64(UInt32.max))
        return TokenBucket(rate: rate / 8, burst: UInt32(bytes), limit: UInt32(limit))
    }
}
