import CNIPlugin
import CNISpec
import JSON
import Kernel

/// What `martlet-overlay` is told to do: its part of a network configuration, see plugins/README.md.
struct OverlayConfiguration: Sendable {
    /// The bridge that containers hang off, which is there already.
    let bridge: String
    /// Of the containers' devices, in bytes; nil: the bridge's.
    let mtu: UInt32?
    /// A container may reach its own published ports.
    let hairpin: Bool
    let pool: AddressPool
    /// The way out leads through here.
    let isDefaultRoute: Bool
    let leases: AddressLeases
    /// The container's hardware address; nil: made of its address.
    let mac: MACAddress?
    /// The only address that will do.
    let address: IPAddress?
    let dns: CNIResult.DNS
    /// What plugins before this one made, and at DEL and CHECK this one too.
    let previous: CNIResult?

    private static let own: Set<String> = [
        "bridge", "mode", "mtu", "hairpin", "addresses", "defaultRoute", "dataDir", "runtimeConfig",
    ]
    private static let mtus: ClosedRange<UInt32> = 68...65535

    init(_ call: PluginCall) throws(CNIError) {
        try call.rejectUnknown(call.configuration, known: Self.own.union(PluginCall.commonMembers))
        var parts: [(reader: JSONReader, known: Set<String>)] = []
        do throws(JSONError) {
            let reader = call.configuration
            let mode = try reader.string("mode")
            guard mode == "shared" else {
                throw reader.error(
                    .type, "mode",
                    "\(JSONPathElement.quoted(mode)) is not supported yet, only \"shared\": containers on a bridge")
            }
            bridge = try Self.interface(reader, "bridge")
            mtu = try reader.optionalUInt32("mtu")
            if let mtu, !Self.mtus.contains(mtu) {
                throw reader.error(
                    .type, "mtu", "\(mtu) is not between \(Self.mtus.lowerBound) and \(Self.mtus.upperBound)")
            }
            hairpin = try reader.optionalBool("hairpin") ?? false
            let pools = try reader.array("addresses")
            parts += pools.map { ($0, ["subnet", "ranges", "gateway"]) }
            guard pools.count == 1 else {
                throw reader.error(
                    .type, "addresses", "one IPv4 subnet is supported, not \(pools.count); IPv6 comes with the overlays"
                )
            }
            pool = try AddressPool(pools[0])
            isDefaultRoute = try reader.optionalBool("defaultRoute") ?? false
            if isDefaultRoute, pool.gateway == nil {
                throw pools[0].error(.missing, "gateway", "the default route needs one")
            }
            leases = try Self.leases(reader, call.network)
            dns =
                try reader.optionalObject("dns").map { member throws(JSONError) in try CNIResult.DNS(member) }
                ?? .init()
            previous = try reader.optionalObject("prevResult").map { member throws(JSONError) in
                try CNIResult(member, version: nil)
            }
            let runtime = try reader.optionalObject("runtimeConfig")
            if let runtime { parts.append((runtime, ["mac", "ips"])) }
            mac = try runtime?.optional("mac").map { member throws(JSONError) in try Self.mac(member) }
            address = if let runtime { try Self.address(runtime, pool) } else { nil }
        } catch {
            throw Self.failure(error)
        }
        for part in parts { try call.rejectUnknown(part.reader, known: part.known) }
        try call.rejectUnknownArguments(known: [PluginCall.endArgument])
    }

    /// Where the network's addresses are kept, without a look at anything else.
    static func leases(_ call: PluginCall) throws(CNIError) -> AddressLeases {
        do throws(JSONError) {
            return try leases(call.configuration, call.network)
        } catch {
            throw failure(error)
        }
    }

    private static func leases(_ reader: JSONReader, _ network: String) throws(JSONError) -> AddressLeases {
        let directory = try reader.string("dataDir")
        guard directory.isAbsolutePath else {
            throw reader.error(.type, "dataDir", "\(JSONPathElement.quoted(directory)) is no absolute path")
        }
        return AddressLeases(dataDirectory: directory, network: network)
    }

    private static func failure(_ error: JSONError) -> CNIError {
        CNIError(code: CNIError.invalidConfiguration, message: error.description)
    }

    private static func interface(_ reader: JSONReader, _ key: String) throws(JSONError) -> String {
        let name = try reader.string(key)
        guard CNINames.isInterface(name) else {
            throw reader.error(.type, key, "\(JSONPathElement.quoted(name)) is no name of a network device")
        }
        return name
    }

    private static func mac(_ reader: JSONReader) throws(JSONError) -> MACAddress {
        let mac = try reader.mac()
        guard mac.bytes.count == 6, mac.bytes[0] & 1 == 0, mac.bytes.contains(where: { $0 != 0 }) else {
            throw reader.error(.type, "\(mac) is no hardware address of one device")
        }
        return mac
    }

    /// Addresses wanted come with or without the length of their prefix.
    private static func address(_ runtime: JSONReader, _ pool: AddressPool) throws(JSONError) -> IPAddress? {
        let wanted = try runtime.elements("ips", atMost: CNILimits.endpoints)
        guard let first = wanted.first else { return nil }
        guard wanted.count == 1 else {
            throw runtime.error(.type, "ips", "a container gets one address here, not \(wanted.count)")
        }
        let text = try first.string()
        guard let address = IPAddress(text) ?? CIDR(text)?.address else {
            throw first.error(.type, "\(JSONPathElement.quoted(text)) is no IP address")
        }
        guard pool.serves(address) else {
            throw first.error(.type, "\(address) is no address for a container in \(pool.subnet)")
        }
        return address
    }
}
