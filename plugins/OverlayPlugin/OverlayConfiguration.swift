import CNIPlugin
import CNISpec
import JSON
import Kernel
import PortmapPlugin

/// What `martlet-overlay` is told to do: its part of a network configuration, see plugins/README.md.
struct OverlayConfiguration: Sendable {
    /// How containers of a network reach each other.
    enum Mode: Sendable, Equatable {
        /// They hang off a bridge, which is there already.
        case shared(SharedMode)
        /// By the host, which has a route to each. The devices' ends on the host are in the group, the routes in the table.
        case routed(group: UInt32, table: UInt32)
    }

    /// The bridge's ports.
    struct SharedMode: Sendable, Equatable {
        let bridge: String
        /// Containers may reach their own published ports.
        var hairpin = false
        /// The bridge believes what frames say of who is where; otherwise it is written down.
        var learning = true
        /// Of the devices' ends on the host.
        var group: UInt32 = 0
    }

    let mode: Mode
    /// Of the containers' devices, in bytes; nil: the bridge's, or Ethernet's own.
    let mtu: UInt32?
    /// One in each family that containers get an address of.
    let pools: [AddressPool]
    var hasV6: Bool { pools.contains { $0.subnet.address.family == .v6 } }
    /// The way out leads through the gateways.
    let isDefaultRoute: Bool
    let leases: AddressLeases
    /// The container's hardware address; nil: made of its address.
    let mac: MACAddress?
    /// The only addresses that will do, of each family at most one.
    let wanted: [IPAddress]
    let dns: CNIResult.DNS
    /// What plugins before this one made, and at DEL and CHECK this one too.
    let previous: CNIResult?
    /// Ports of the host lead to containers, as the plugin portmap has them: `snat` is there.
    let publishes: Bool

    private static let own: Set<String> = [
        "mode", "mtu", "addresses", "defaultRoute", "dataDir", "snat", "runtimeConfig",
    ]
    private static let mtus: ClosedRange<UInt32> = 68...65535
    /// Of IPv6 (RFC 8200, section 5).
    private static let leastMTU6: UInt32 = 1280

    init(_ call: PluginCall) throws(CNIError) {
        let reader = call.configuration
        let isRouted = try Self.isRouted(call)
        let ofMode: Set<String> = isRouted ? ["group", "table"] : ["group", "bridge", "hairpin", "learning"]
        try call.rejectUnknown(reader, known: Self.own.union(ofMode).union(PluginCall.commonMembers))
        var parts: [(reader: JSONReader, known: Set<String>)] = []
        do throws(JSONError) {
            mode = try isRouted ? Self.routed(reader) : Self.shared(reader)
            let elements = try reader.array("addresses")
            parts += elements.map { ($0, ["subnet", "ranges", "gateway"]) }
            pools = try Self.pools(elements, reader, isRouted: isRouted)
            mtu = try reader.optionalUInt32("mtu")
            let least = pools.contains { $0.subnet.address.family == .v6 } ? Self.leastMTU6 : Self.mtus.lowerBound
            if let mtu, mtu < least || mtu > Self.mtus.upperBound {
                throw reader.error(.type, "mtu", "\(mtu) is not between \(least) and \(Self.mtus.upperBound)")
            }
            isDefaultRoute = try reader.optionalBool("defaultRoute") ?? false
            for (pool, element) in zip(pools, elements) where pool.gateway == nil {
                if isRouted {
                    throw element.error(.missing, "gateway", "the mode \"routed\" needs one")
                } else if pool.subnet.address.family == .v6 {
                    throw element.error(.missing, "gateway", "IPv6 needs one: all of it goes by the host")
                } else if isDefaultRoute {
                    throw element.error(.missing, "gateway", "the default route needs one")
                }
            }
            leases = try Self.leases(reader, call.network)
            dns =
                try reader.optionalObject("dns").map { member throws(JSONError) in try CNIResult.DNS(member) }
                ?? .init()
            previous = try reader.optionalObject("prevResult").map { member throws(JSONError) in
                try CNIResult(member, version: nil)
            }
            let runtime = try reader.optionalObject("runtimeConfig")
            publishes = Self.publishes(call)
            if let runtime { parts.append((runtime, publishes ? ["mac", "ips", "portMappings"] : ["mac", "ips"])) }
            mac = try runtime?.optional("mac").map { member throws(JSONError) in try Self.mac(member) }
            wanted = if let runtime { try Self.wanted(runtime, pools) } else { [] }
        } catch {
            throw Self.failure(error)
        }
        for part in parts { try call.rejectUnknown(part.reader, known: part.known) }
        try call.rejectUnknownArguments(known: [PluginCall.endArgument])
        if publishes { try PortmapPlugin.expectPorts(call) }
    }

    /// Whether there may be published ports, without a look at anything else.
    static func publishes(_ call: PluginCall) -> Bool {
        (try? call.configuration.optional("snat")).flatMap { $0 } != nil
    }

    /// The bridge of the mode "shared", without a look at anything else; nil: none can be told.
    static func bridge(_ call: PluginCall) -> String? {
        (try? call.configuration.optionalString("bridge")).flatMap { $0 }
            .flatMap { CNINames.isInterface($0) ? $0 : nil }
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

    // MARK: Modes

    private static func isRouted(_ call: PluginCall) throws(CNIError) -> Bool {
        do throws(JSONError) {
            let mode = try call.configuration.string("mode")
            guard mode == "shared" || mode == "routed" else {
                throw call.configuration.error(
                    .type, "mode",
                    "\(JSONPathElement.quoted(mode)) is not supported, only \"shared\", containers on a bridge, and "
                        + "\"routed\", without one")
            }
            return mode == "routed"
        } catch {
            throw failure(error)
        }
    }

    private static func shared(_ reader: JSONReader) throws(JSONError) -> Mode {
        let bridge = try reader.string("bridge")
        guard CNINames.isInterface(bridge) else {
            throw reader.error(.type, "bridge", "\(JSONPathElement.quoted(bridge)) is no name of a network device")
        }
        return .shared(
            SharedMode(
                bridge: bridge, hairpin: try reader.optionalBool("hairpin") ?? false,
                learning: try reader.optionalBool("learning") ?? true, group: try reader.optionalUInt32("group") ?? 0))
    }

    private static func routed(_ reader: JSONReader) throws(JSONError) -> Mode {
        let table = try reader.optionalUInt32("table") ?? mainTable
        guard table != 0, table != localTable else {
            throw reader.error(.type, "table", "\(table) is no routing table for routes to containers")
        }
        return .routed(group: try reader.optionalUInt32("group") ?? 0, table: table)
    }

    /// RT_TABLE_MAIN and RT_TABLE_LOCAL, see rtnetlink(7).
    private static let mainTable: UInt32 = 254
    private static let localTable: UInt32 = 255

    private static func pools(
        _ elements: [JSONReader], _ reader: JSONReader, isRouted: Bool
    ) throws(JSONError) -> [AddressPool] {
        var pools: [AddressPool] = []
        for element in elements.prefix(2) { pools.append(try AddressPool(element)) }
        let families = Set(pools.map(\.subnet.address.family))
        if isRouted {
            guard !elements.isEmpty, elements.count == families.count else {
                throw reader.error(
                    .type, "addresses", "one IPv4 subnet, one IPv6 subnet or one of both is supported, not these")
            }
        } else {
            guard (1...2).contains(elements.count), elements.count == families.count,
                pools.first?.subnet.address.family == .v4
            else {
                throw reader.error(
                    .type, "addresses",
                    "the mode \"shared\" takes one IPv4 subnet, and behind it one IPv6 subnet or none, not these")
            }
        }
        return pools
    }

    // MARK: What the runtime asks for

    private static func mac(_ reader: JSONReader) throws(JSONError) -> MACAddress {
        let mac = try reader.mac()
        guard mac.bytes.count == 6, mac.bytes[0] & 1 == 0, mac.bytes.contains(where: { $0 != 0 }) else {
            throw reader.error(.type, "\(mac) is no hardware address of one device")
        }
        return mac
    }

    /// Addresses wanted come with or without the length of their prefix.
    private static func wanted(_ runtime: JSONReader, _ pools: [AddressPool]) throws(JSONError) -> [IPAddress] {
        var wanted: [IPAddress] = []
        for element in try runtime.elements("ips", atMost: CNILimits.endpoints) {
            let text = try element.string()
            guard let address = IPAddress(text) ?? CIDR(text)?.address else {
                throw element.error(.type, "\(JSONPathElement.quoted(text)) is no IP address")
            }
            guard !wanted.contains(where: { $0.family == address.family }) else {
                throw runtime.error(.type, "ips", "a container gets one address of a family, not \(address) too")
            }
            guard pools.contains(where: { $0.serves(address) }) else {
                let subnets = pools.map(\.subnet.description).joined(separator: " or ")
                throw element.error(.type, "\(address) is no address for a container in \(subnets)")
            }
            wanted.append(address)
        }
        return wanted
    }
}
