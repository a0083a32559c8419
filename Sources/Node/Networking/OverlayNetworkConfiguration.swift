import CNISpec
import JSON
import Kernel
import Netlink

/// An overlay network as a node makes it, see docs/networks.md.
package struct OverlayNetworkConfiguration: Sendable, Equatable {
    /// The network's name in records and leases: a name of a device, which there is none of.
    package var name: String
    /// The name of its VXLAN device.
    package var device: String
    /// 1…16777215; nobody else's.
    package var vni: UInt32
    /// IPv4, /8 to /30.
    package var subnet: CIDR
    /// The address of the subnet by which pods reach their node; the same on all nodes.
    package var gateway: IPAddress
    /// IPv6, /48 to /126; nil: pods get no IPv6 address.
    package var subnet6: CIDR?
    package var gateway6: IPAddress?
    /// Of devices, in bytes; nil: that of the underlay less what VXLAN, and ESP, need.
    package var mtu: Int?
    /// What goes to other nodes goes under ESP or not at all.
    package var isEncrypted: Bool
    /// Nothing goes out or comes in; ports are not published.
    package var isInternal: Bool
    /// Pods reach other networks under the node's address.
    package var masquerade: Bool

    package init(
        name: String, device: String, vni: UInt32, subnet: CIDR, gateway: IPAddress, subnet6: CIDR? = nil,
        gateway6: IPAddress? = nil, mtu: Int? = nil, isEncrypted: Bool = false, isInternal: Bool = false,
        masquerade: Bool = true
    ) {
        self.name = name
        self.device = device
        self.vni = vni
        self.subnet = subnet
        self.gateway = gateway
        self.subnet6 = subnet6
        self.gateway6 = gateway6
        self.mtu = mtu
        self.isEncrypted = isEncrypted
        self.isInternal = isInternal
        self.masquerade = masquerade
    }

    /// What the names of all VXLAN devices of ours begin with.
    static let devicePrefix = "mx-"

    var subnets: [CIDR] { [subnet] + (subnet6.map { [$0] } ?? []) }
    var gateways: [IPAddress] { [gateway] + (gateway6.map { [$0] } ?? []) }
    /// That its VXLAN packets are sent to.
    var port: UInt16 { isEncrypted ? OverlayNumbers.encryptedPort : OverlayNumbers.port }
    var group: UInt32 { OverlayNumbers.group(vni: vni) }

    /// - Throws: `NetworkError` of kind configuration, with what cannot be.
    func validate() throws(NetworkError) {
        func refuse(_ why: String) -> NetworkError { NetworkError(.configuration, "the network \(name): \(why)") }
        guard CNINames.isInterface(name), CNINames.isName(name) else {
            throw NetworkError(.configuration, "'\(name)' is no name for a network")
        }
        guard CNINames.isInterface(device), device.hasPrefix(Self.devicePrefix) else {
            throw refuse("'\(device)' is no name for its device: it begins with '\(Self.devicePrefix)'")
        }
        guard OverlayNumbers.identifiers.contains(vni) else { throw refuse("there is no VNI \(vni)") }
        guard subnet.isNetwork, subnet.address.family == .v4, (8...30).contains(subnet.prefixLength),
            !subnet.first.isLoopback, !subnet.first.isMulticast, !subnet.first.isLinkLocal
        else { throw refuse("\(subnet) is no IPv4 network for pods between /8 and /30") }
        guard subnet.contains(gateway), gateway != subnet.first, gateway != subnet.last else {
            throw refuse("the gateway \(gateway) is no address of \(subnet)")
        }
        if let subnet6 {
            guard subnet6.isNetwork, subnet6.address.family == .v6, (48...126).contains(subnet6.prefixLength),
                !subnet6.first.isMulticast, !subnet6.first.isLinkLocal, !subnet6.first.isUnspecified
            else { throw refuse("\(subnet6) is no IPv6 network for pods between /48 and /126") }
            guard let gateway6, subnet6.contains(gateway6), gateway6 != subnet6.first else {
                throw refuse("the gateway \(gateway6?.description ?? "") is no address of \(subnet6)")
            }
        } else if gateway6 != nil {
            throw refuse("it has an IPv6 gateway and no IPv6 subnet")
        }
        let least = subnet6 == nil ? 576 : 1280
        if let mtu, !(least...65535).contains(mtu) {
            throw refuse("an MTU of \(mtu) is not between \(least) and 65535")
        }
    }
}

extension OverlayNetworkConfiguration {
    var json: JSONValue {
        var object: JSONObject = [
            "name": .string(name), "device": .string(device), "vni": .integer(Int64(vni)),
            "subnet": .string(subnet.description), "gateway": .string(gateway.description),
            "internal": .bool(isInternal), "masquerade": .bool(masquerade),
        ]
        if let subnet6 { object["subnet6"] = .string(subnet6.description) }
        if let gateway6 { object["gateway6"] = .string(gateway6.description) }
        if isEncrypted { object["encrypted"] = .bool(true) }
        if let mtu { object["mtu"] = .integer(Int64(mtu)) }
        return .object(object)
    }

    /// Reads what `json` wrote.
    init(_ reader: JSONReader) throws(JSONError) {
        func address(_ key: String, _ text: String) throws(JSONError) -> IPAddress {
            guard let address = IPAddress(text) else { throw reader.error(.type, key, "is no address") }
            return address
        }
        func network(_ key: String, _ text: String) throws(JSONError) -> CIDR {
            guard let network = CIDR(text) else { throw reader.error(.type, key, "is no network") }
            return network
        }
        name = try reader.string("name")
        device = try reader.string("device")
        vni = try reader.uint32("vni")
        subnet = try network("subnet", reader.string("subnet"))
        gateway = try address("gateway", reader.string("gateway"))
        subnet6 = try reader.optionalString("subnet6").map { text throws(JSONError) in try network("subnet6", text) }
        gateway6 = try reader.optionalString("gateway6").map { text throws(JSONError) in try address("gateway6", text) }
        mtu = try reader.optionalInteger("mtu")
        isEncrypted = try reader.optionalBool("encrypted") ?? false
        isInternal = try reader.bool("internal")
        masquerade = try reader.bool("masquerade")
    }
}

/// Another node on an overlay network, and what is behind it.
package struct OverlayPeer: Sendable, Equatable {
    /// By which it is known: the node's id.
    package var key: String
    /// The address that packets to the node are sent to.
    package var underlay: IPAddress
    /// Its blocks, and single addresses (/32 and /128) that are its from the blocks of others. Where two peers have the
    /// same, the one heard of last is right.
    package var blocks: [CIDR]
    /// By which both agree on what encrypts between them, see `TunnelCryptography`; empty: it has none, and nothing of
    /// encrypted networks goes there.
    package var publicKey: [UInt8]

    package init(key: String, underlay: IPAddress, blocks: [CIDR], publicKey: [UInt8] = []) {
        self.key = key
        self.underlay = underlay
        self.blocks = blocks
        self.publicKey = publicKey
    }

    /// Most blocks and exceptions of one peer: all addresses of a /16.
    static let mostBlocks = 65_536

    /// - Throws: `NetworkError` of kind configuration, with what cannot be.
    func validate() throws(NetworkError) {
        guard CNINames.isName(key), key.utf8.count <= 128 else {
            throw NetworkError(.configuration, "'\(key)' is no name for a peer")
        }
        guard !underlay.isUnspecified, !underlay.isMulticast, !underlay.isLoopback else {
            throw NetworkError(.configuration, "the peer \(key) cannot be reached at \(underlay)")
        }
        guard publicKey.isEmpty || publicKey.count == TunnelCryptography.publicKeyBytes else {
            throw NetworkError(.configuration, "the peer \(key) has a public key of \(publicKey.count) bytes")
        }
        guard blocks.count <= Self.mostBlocks else {
            throw NetworkError(.configuration, "the peer \(key) has more than \(Self.mostBlocks) blocks")
        }
        if let bad = blocks.first(where: { !$0.isNetwork }) {
            throw NetworkError(.configuration, "\(bad) of the peer \(key) is no network")
        }
    }
}
