import CNIPlugin
import CNISpec
import Glibc
import JSON
import Kernel
import Synchronization

/// How the pods of this node are connected.
package struct BridgeNetworkConfiguration: Sendable, Equatable {
    /// The network's name: in files, in the plugins' rules.
    package var name = "martlet"
    /// The bridge's device name.
    package var bridge = "martlet0"
    /// An IPv4 network of /8 to /29. The default is seldom used by others.
    package var subnet = "10.213.0.0/16"
    /// The bridge's own address; nil: the subnet's first.
    package var gateway: String?
    /// An IPv6 network of /48 to /112; nil: its pods have no IPv6.
    package var subnet6: String?
    /// The bridge's own address of `subnet6`; nil: its first.
    package var gateway6: String?
    /// The part of the IPv4 subnet that pods get addresses from; nil: all of it.
    package var range: String?
    /// Addresses that no pod gets unless it asks for one.
    package var reserved: [String] = []
    /// For a network that users made: the bridge of the node's own, from which it is kept apart, as from all others.
    package var nodeBridge: String?
    /// Nothing goes out or comes in; ports are not published.
    package var isInternal = false
    /// Bytes; nil for that of the device with the default route.
    package var mtu: Int?
    /// Pods reach other networks under the node's address.
    package var masquerade = true
    /// The absolute path of our own plugin; empty: it is looked for in `pluginDirectories`.
    package var overlayProgram = ""
    /// The same of our portmap.
    package var portmapProgram = ""
    package var pluginDirectories = CNIHost.defaultPluginDirectories
    /// Longest run of one plugin.
    package var timeoutMilliseconds = 60_000
    /// The node's data directory: `cni/cache` in it.
    package var dataDirectory: String
    /// The node's run directory: `netns` and `cni` in it.
    package var runDirectory: String

    package init(dataDirectory: String, runDirectory: String) {
        self.dataDirectory = dataDirectory
        self.runDirectory = runDirectory
    }

    /// Our plugins that are not looked for in the plugin directories, with their programs.
    var ownPlugins: [String: String] {
        [OwnPlugin.overlay: overlayProgram, OwnPlugin.portmap: portmapProgram].filter { !$0.value.isEmpty }
    }
}

extension BridgeNetworkConfiguration {
    /// What makes it another network than the node's, for the run directory.
    var json: JSONValue {
        var object: JSONObject = [
            "bridge": .string(bridge), "subnet": .string(subnet), "reserved": .array(reserved.map { .string($0) }),
            "internal": .bool(isInternal), "masquerade": .bool(masquerade),
        ]
        if let gateway { object["gateway"] = .string(gateway) }
        if let subnet6 { object["subnet6"] = .string(subnet6) }
        if let gateway6 { object["gateway6"] = .string(gateway6) }
        if let range { object["range"] = .string(range) }
        if let mtu { object["mtu"] = .integer(Int64(mtu)) }
        return .object(object)
    }

    /// With what `json` wrote; `BridgeNetwork.init` checks it.
    func filled(_ reader: JSONReader) throws(JSONError) -> Self {
        var new = self
        new.bridge = try reader.string("bridge")
        new.subnet = try reader.string("subnet")
        new.reserved = try reader.elements("reserved", atMost: 4096).map { element throws(JSONError) in
            try element.string()
        }
        new.isInternal = try reader.bool("internal")
        new.masquerade = try reader.bool("masquerade")
        new.gateway = try reader.optionalString("gateway")
        new.subnet6 = try reader.optionalString("subnet6")
        new.gateway6 = try reader.optionalString("gateway6")
        new.range = try reader.optionalString("range")
        new.mtu = try reader.optionalInteger("mtu")
        return new
    }
}

/// The node's own network: a bridge, an address for each pod, translation outwards, published ports; wired by our CNI
/// plugin martlet-overlay.
///
/// What belongs to the whole network is made here, once: the bridge, forwarding and three rules with the comment
/// `martlet:<bridge>`. Outward translation is one rule for the subnet.
///
/// Address leases are in the run directory: a lease is worth no more than the namespace that has the address, and both
/// are gone after a reboot.
///
/// All functions block. Calls about one container must not overlap; others may.
package final class BridgeNetwork: Sendable {
    package let configuration: BridgeNetworkConfiguration
    private let subnet: CIDR
    /// The bridge's own address, which leads to the node.
    package let gateway: IPAddress
    /// IPv6; nil: there is none.
    private let network6: Network6?
    private let range: AddressRange
    let device: BridgeDevice
    let host: CNIHost
    /// What the kernel has of this network and others.
    let fabric: BridgeFabric
    private let ports = PublishedPorts()
    /// What this process attached: never garbage, however old the list of the living is that we are given.
    private let attached = Mutex<Set<String>>([])

    /// The namespace's first device.
    package static let interface = "eth0"

    var pinDirectory: String { "\(configuration.runDirectory)/netns" }
    var stateDirectory: String { "\(configuration.runDirectory)/cni" }
    var leaseDirectory: String { "\(stateDirectory)/ipam/\(configuration.name)" }
    private var forwarding: [Forwarding] {
        (network6 == nil ? [false] : [false, true]).map { Forwarding(isV6: $0, directory: stateDirectory) }
    }

    /// Checks the configuration; touches nothing.
    package convenience init(_ configuration: BridgeNetworkConfiguration) throws(NetworkError) {
        try self.init(configuration, fabric: BridgeFabric())
    }

    init(_ configuration: BridgeNetworkConfiguration, fabric: BridgeFabric) throws(NetworkError) {
        guard CNINames.isName(configuration.name), configuration.name.utf8.count <= 32 else {
            throw NetworkError(.configuration, "'\(configuration.name)' is no name for a network")
        }
        guard CNINames.isInterface(configuration.bridge) else {
            throw NetworkError(
                .configuration, "'\(configuration.bridge)' is no name for a bridge: at most 15 plain characters")
        }
        guard let subnet = CIDR(configuration.subnet), subnet.isNetwork, subnet.address.family == .v4,
            (8...29).contains(subnet.prefixLength), let first = subnet.first.advanced(by: 1)
        else {
            throw NetworkError(
                .configuration,
                "'\(configuration.subnet)' is no IPv4 network between /8 and /29, such as 10.213.0.0/16")
        }
        if subnet.first.isLoopback || subnet.first.isMulticast {
            throw NetworkError(.configuration, "\(subnet) cannot be routed; choose a private network")
        }
        network6 = try Network6(configuration)
        let least = network6 == nil ? 576 : Network6.leastMTU
        if let mtu = configuration.mtu, !(least...65535).contains(mtu) {
            throw NetworkError(.configuration, "an MTU of \(mtu) is not between \(least) and 65535")
        }
        guard let gateway = configuration.gateway.map({ IPAddress($0) }) ?? first, subnet.contains(gateway),
            let address = CIDR(gateway, prefixLength: subnet.prefixLength)
        else {
            throw NetworkError(
                .configuration, "the gateway '\(configuration.gateway ?? "")' is no address of \(subnet)")
        }
        self.configuration = configuration
        self.subnet = subnet
        self.gateway = gateway
        self.fabric = fabric
        range = try AddressRange(configuration, subnet, gateway: gateway)
        device = BridgeDevice(
            name: configuration.bridge, address: address, address6: network6?.address,
            mark: "martlet \(configuration.dataDirectory)"
                + (configuration.nodeBridge == nil ? "" : " \(configuration.name)"))
        do throws(JSONError) {
            let list = try Self.list(
                configuration, subnet, gateway, range, network6, mtu: configuration.mtu, hasPorts: true,
                isDefaultRoute: true)
            host = CNIHost(
                list: list, pluginDirectories: configuration.pluginDirectories,
                own: configuration.ownPlugins,
                cacheDirectory: "\(configuration.dataDirectory)/cni/cache",
                timeoutMilliseconds: configuration.timeoutMilliseconds)
        } catch {
            throw NetworkError(.configuration, error.description)
        }
    }

    /// - Parameters:
    ///   - hasPorts: without any the plugin need not look at the packet filter.
    ///   - isDefaultRoute: whether the pod's way out leads through here.
    private static func list(
        _ configuration: BridgeNetworkConfiguration, _ subnet: CIDR, _ gateway: IPAddress, _ range: AddressRange,
        _ network6: Network6?, mtu: Int?, hasPorts: Bool, isDefaultRoute: Bool
    ) throws(JSONError) -> NetworkConfigurationList {
        var addresses: JSONObject = ["subnet": .string(subnet.description), "gateway": .string(gateway.description)]
        if let parts = range.bounds {
            addresses["ranges"] = .array(
                parts.map { [.string($0.lowerBound.description), .string($0.upperBound.description)] })
        }
        var pools: [JSONValue] = [.object(addresses)]
        if let network6 {
            pools.append([
                "subnet": .string(network6.subnet.description), "gateway": .string(network6.gateway.description),
            ])
        }
        var overlay: JSONObject = [
            "type": .string(OwnPlugin.overlay), "mode": "shared", "bridge": .string(configuration.bridge),
            "hairpin": true, "learning": false, "group": .integer(Int64(BridgeFilter.group)),
            "addresses": .array(pools), "defaultRoute": .bool(isDefaultRoute),
            "dataDir": .string("\(configuration.runDirectory)/cni/ipam"),
            "capabilities": ["mac": true, "ips": true],
        ]
        if let mtu { overlay["mtu"] = .integer(Int64(mtu)) }
        if hasPorts { OwnPlugin.addPorts(to: &overlay) }
        return NetworkConfigurationList(
            name: configuration.name, plugins: [try PluginConfiguration(JSONReader(.object(overlay)))])
    }

    /// The list for one pod: its device gets the bridge's MTU.
    private func list(hasPorts: Bool, isDefaultRoute: Bool) throws(NetworkError) -> NetworkConfigurationList {
        do {
            return try Self.list(
                configuration, subnet, gateway, range, network6, mtu: device.mtu(), hasPorts: hasPorts,
                isDefaultRoute: isDefaultRoute)
        } catch {
            throw NetworkError(.failed, "\(error)")
        }
    }

    /// The configuration list of this network, as the plugins get it.
    package var list: NetworkConfigurationList { host.list }
}

// MARK: - The network as a whole

extension BridgeNetwork {
    /// What stands in the way of this network on this machine; changes nothing.
    package func conflicts() -> [NetworkError] {
        var problems: [NetworkError] = []
        let places = configuration.pluginDirectories.joined(separator: ", ")
        if host.program(of: OwnPlugin.overlay) == nil {
            let place = configuration.overlayProgram.isEmpty ? "in \(places)" : "at \(configuration.overlayProgram)"
            problems.append(
                NetworkError(
                    .missingProgram,
                    "no program \(OwnPlugin.overlay) \(place); build or install it with Martlet's others"))
        }
        if host.program(of: OwnPlugin.portmap) == nil {
            let place = configuration.portmapProgram.isEmpty ? "in \(places)" : "at \(configuration.portmapProgram)"
            problems.append(
                NetworkError(
                    .missingProgram,
                    "no program \(OwnPlugin.portmap) \(place); build or install it with Martlet's others"))
        }
        for isV6 in network6 == nil ? [false] : [false, true] {
            do throws(NetworkError) {
                _ = try PacketFilter(isV6: isV6)
            } catch {
                problems.append(error)
            }
        }
        do throws(KernelError) {
            if let problem = try deviceConflict() { problems.append(problem) }
        } catch {
            problems.append(NetworkError(.failed, error.description))
        }
        return problems
    }

    private func deviceConflict() throws(KernelError) -> NetworkError? {
        if case .someoneElse(let what) = try device.owner() {
            return NetworkError(
                .bridgeTaken, "\(device.name) is \(what) already; remove it or choose another name for our bridge")
        }
        for subnet in [subnet, network6?.subnet].compactMap(\.self) {
            if let other = try HostNetwork.conflict(with: subnet, except: device.name) {
                return NetworkError(
                    .subnetTaken,
                    "the subnet \(subnet) overlaps \(other.network) on \(other.interface); choose another subnet")
            }
        }
        if network6 != nil, !Forwarding.hasV6 {
            return NetworkError(
                .configuration,
                "this machine has no IPv6 (it was switched off when the kernel was started): take a network without")
        }
        return nil
    }

    /// Makes the network ready, or repairs it: bridge, forwarding, rules. Repeating it does no harm.
    ///
    /// - Throws: the first conflict; what the kernel or iptables refused.
    package func prepare() throws(NetworkError) {
        if let conflict = conflicts().first { throw conflict }
        let filter = try PacketFilter()
        do throws(KernelError) {
            try File.makeDirectories(stateDirectory)
            try prepareDevice()
            for forwarding in forwarding { try forwarding.enable() }
        } catch {
            throw NetworkError(.failed, error.description)
        }
        for rule in rules(.v4) { try filter.ensure(rule) }
        if network6 != nil {
            let filter = try PacketFilter(isV6: true)
            for rule in rules(.v6) { try filter.ensure(rule) }
        }
        let (mtu, records): (Int, [CNIRecord])
        do throws(KernelError) {
            (mtu, records) = (try device.mtu(), try host.records())
        } catch {
            throw NetworkError(.failed, error.description)
        }
        try fabric.install(parts(mtu: mtu), records)
    }

    private func parts(mtu: Int) -> BridgeFabric.Network {
        BridgeFabric.Network(
            name: configuration.name, device: device, mtu: mtu,
            rules: network6 == nil ? [.v4: rules(.v4)] : [.v4: rules(.v4), .v6: rules(.v6)], forwarding: forwarding)
    }

    /// Takes over what an earlier process made, whatever of it is there.
    func adopt() throws(KernelError) {
        let known = configuration.mtu ?? (try? device.mtu())
        let mtu = if let known { known } else { try HostNetwork.defaultMTU() }
        fabric.adopt(parts(mtu: mtu), try host.records())
    }

    private func prepareDevice() throws(KernelError) {
        if try device.owner() == .us, try !device.hasAddress() {
            // Ours with another address: of another configuration, or a start of ours that was cut off.
            guard try host.records().isEmpty else {
                throw KernelError(
                    "reconfigure", device.name, errno: EBUSY,
                    hint: "pods are attached to it with another subnet; stop them first")
            }
            try device.delete()
        }
        if try device.owner() == .us {
            return try device.makeReady()
        }
        let mtu = if let mtu = configuration.mtu { mtu } else { try HostNetwork.defaultMTU() }
        guard network6 == nil || mtu >= Network6.leastMTU else {
            throw KernelError(
                "make the bridge", device.name, errno: EINVAL,
                hint: "IPv6 needs packets of \(Network6.leastMTU) bytes, and those of this machine have \(mtu) at most")
        }
        try device.create(mtu: mtu)
    }

    /// What the comments of a bridge's rules are.
    static func ruleMark(_ device: String) -> String { "martlet:\(device)" }
    private var ruleMark: String { Self.ruleMark(device.name) }
    /// What the names of bridges of networks that users made begin with, where they did not choose another.
    static let userPrefix = "mt-"

    /// The rules for the network as a whole, in a family.
    private func rules(_ family: IPAddress.Family) -> [PacketFilter.Rule] {
        let comment = ["-m", "comment", "--comment", ruleMark]
        var rules = isolation(comment)
        rules += [
            // Where the policy is to drop (a docker daemon sets it), pods may still send, and receive answers and
            // what came to a published port.
            PacketFilter.Rule(
                table: "filter", chain: "FORWARD", words: ["-i", device.name] + comment + ["-j", "ACCEPT"]),
            PacketFilter.Rule(
                table: "filter", chain: "FORWARD",
                words: ["-o", device.name, "-m", "conntrack", "--ctstate", "RELATED,ESTABLISHED,DNAT"] + comment
                    + ["-j", "ACCEPT"]),
        ]
        let source = family == .v4 ? subnet : network6?.subnet
        if configuration.masquerade, !configuration.isInternal, let source {
            rules.append(
                PacketFilter.Rule(
                    table: "nat", chain: "POSTROUTING",
                    words: ["-s", source.description, "!", "-o", device.name] + comment + ["-j", "MASQUERADE"]))
        }
        return rules
    }

    /// Keeps a network that users made apart from all others: nothing comes in but answers and what came to a published
    /// port. In the table `mangle`, which is asked before anybody's rule in `filter` can accept.
    private func isolation(_ comment: [String]) -> [PacketFilter.Rule] {
        guard let node = configuration.nodeBridge else { return [] }
        let unasked = ["-m", "conntrack", "!", "--ctstate", "RELATED,ESTABLISHED,DNAT"]
        func drop(_ words: [String]) -> PacketFilter.Rule {
            PacketFilter.Rule(table: "mangle", chain: "FORWARD", words: words + comment + ["-j", "DROP"])
        }
        let name = device.name
        if configuration.isInternal {
            return [drop(["!", "-i", name, "-o", name]), drop(["-i", name, "!", "-o", name])]
        }
        return [drop(["!", "-i", name, "-o", name] + unasked), drop(["-i", name, "-o", node] + unasked)]
    }
}

// MARK: - One pod

extension BridgeNetwork {
    /// Connects a pod.
    ///
    /// - Parameters:
    ///   - id: the task's.
    ///   - namespacePath: its pinned network namespace.
    ///   - interface: the device's name inside.
    ///   - ports: to publish, of each family that the network has. An internal network has none.
    ///   - address: the only IPv4 address that will do; nil: any that is free.
    ///   - address6: the same of IPv6.
    ///   - mac: the device's hardware address; nil: any.
    ///   - isDefaultRoute: the pod's way out leads through this network.
    /// - Throws: `NetworkError` of kind portTaken when a port is in use; otherwise what the plugins say. Nothing is
    ///   left behind then, or it is on record for the garbage collection.
    package func attach(
        _ id: String, namespacePath: String, interface: String = BridgeNetwork.interface, ports: [PortMapping] = [],
        address: IPAddress? = nil, address6: IPAddress? = nil, mac: MACAddress? = nil, isDefaultRoute: Bool = true
    ) throws(NetworkError) -> EndpointAddresses {
        guard address6 == nil || network6 != nil else {
            throw NetworkError(
                .configuration, "the network \(configuration.name) has no IPv6, and no \(address6?.description ?? "")")
        }
        let ports = configuration.isInternal ? [] : ports
        let list = try list(hasPorts: !ports.isEmpty, isDefaultRoute: isDefaultRoute && !configuration.isInternal)
        do {
            // Of a try that was cut off.
            for record in try host.records(of: id) where record.attachment.interface != interface {
                try delete(record)
            }
        } catch {
            throw NetworkError(.failed, "\(error)")
        }
        try self.ports.reserve(ports, for: id, hasV6: network6 != nil) { () throws(KernelError) in
            try host.records()
        }
        attached.withLock { _ = $0.insert(id) }
        var capabilities = CapabilityArguments(portMappings: ports)
        capabilities.mac = mac
        if let address, let wanted = CIDR(address, prefixLength: subnet.prefixLength) {
            capabilities.addresses = [wanted]
        }
        if let address6, let network6, let wanted = CIDR(address6, prefixLength: network6.subnet.prefixLength) {
            capabilities.addresses.append(wanted)
        }
        let attachment = NetworkAttachment(
            containerID: id, namespacePath: namespacePath, interface: interface, capabilities: capabilities)
        fabric.keeper.begin(attachment, on: configuration.name)
        do throws(CNIHostError) {
            let result = try host.add(attachment, list: list) { result throws(CNIHostError) in
                try self.letPass(attachment, result)
            }
            fabric.keeper.settle(attachment, on: configuration.name, result)
            return try addresses(in: result, ports)
        } catch {
            fabric.remove(attachment, from: configuration.name)
            if (try? isOnRecord(id)) == false { fabric.keeper.settle(attachment, on: configuration.name, nil) }
            release(id)
            for address in [address, address6].compactMap(\.self) {
                guard let holder = holder(of: address), holder != id else { continue }
                throw NetworkError(
                    .addressTaken,
                    "the address \(address) of the network \(configuration.name) is task \(holder)'s: choose another "
                        + "(\(error))")
            }
            throw NetworkError(.failed, error.description)
        }
    }

    /// Disconnects a pod, whatever its device is called; one that is not connected is no error. May be repeated until
    /// it succeeds.
    ///
    /// - Parameter isEnd: the caller lets go of the pod's namespace right afterwards. Its device is then only switched off
    ///   here and goes with the namespace: the kernel takes 10 to 50 ms to delete one.
    package func detach(_ id: String, isEnd: Bool = false) throws(NetworkError) {
        do {
            let records = try host.records(of: id)
            for record in records {
                let isOurs = record.list.plugins.contains { $0.type == OwnPlugin.overlay }
                try delete(record, arguments: isEnd && isOurs ? Self.endArguments : [:])
                if OwnPlugin.publishedByOther(record) {
                    try PacketFilter().removePluginRules(network: configuration.name) { $0 == id }
                }
            }
            // An address without a record: the record was damaged.
            if records.isEmpty, let interface = try leases()[id] {
                try host.delete(NetworkAttachment(containerID: id, namespacePath: "", interface: interface))
            }
        } catch {
            throw NetworkError(.failed, "\(error)")
        }
        release(id)
    }

    /// Until now nothing of the pod passes its bridge.
    private func letPass(_ attachment: NetworkAttachment, _ result: CNIResult) throws(CNIHostError) {
        let failure: String
        do throws(KernelError) {
            let pod = BridgedPod(attachment, on: configuration.name, bridge: device.name, result)
            if let pod { return try fabric.add(pod) }
            failure = "the result names no device of the host or has no hardware address"
        } catch {
            failure = error.description
        }
        throw CNIHostError(
            verb: .add, plugin: OwnPlugin.overlay, network: configuration.name, container: attachment.containerID,
            reason: failure)
    }

    private func delete(_ record: CNIRecord, arguments: [String: String] = [:]) throws(CNIHostError) {
        fabric.remove(record.attachment, from: configuration.name)
        fabric.keeper.begin(record.attachment, on: configuration.name)
        try host.delete(record, arguments: arguments)
        fabric.keeper.settle(record.attachment, on: configuration.name, nil)
    }

    /// Says so to our plugin; others may ignore it.
    static let endArguments = ["IgnoreUnknown": "1", "MARTLET_END": "1"]

    /// The addresses of a pod that is connected; nil for one that is not.
    package func addresses(of id: String) throws(NetworkError) -> EndpointAddresses? {
        do {
            guard let record = try host.records(of: id).first(where: \.isComplete), let result = record.result
            else { return nil }
            return try addresses(in: result, record.attachment.capabilities.portMappings)
        } catch {
            throw NetworkError(.failed, "\(error)")
        }
    }

    /// Asks the plugins whether a pod is still connected as it was.
    package func check(_ id: String) throws(NetworkError) {
        do throws(CNIHostError) {
            try host.check(NetworkAttachment(containerID: id, namespacePath: "", interface: Self.interface))
        } catch {
            throw NetworkError(.failed, error.description)
        }
    }

    private func addresses(
        in result: CNIResult, _ ports: [PortMapping]
    ) throws(CNIHostError) -> EndpointAddresses {
        guard let address = result.inside.first(where: { $0.address.address.family == .v4 }) else {
            throw CNIHostError(
                verb: .add, plugin: "", network: configuration.name, container: "",
                reason: "the result has no IPv4 address")
        }
        let interface = address.interface.map { result.interfaces[$0] }
        let address6 = result.inside.first { $0.address.address.family == .v6 }
        return EndpointAddresses(
            interface: interface?.name ?? Self.interface, address: address.address, gateway: address.gateway,
            // With the subnet's prefix, whatever the device has.
            address6: address6.flatMap { found in
                network6.flatMap { CIDR(found.address.address, prefixLength: $0.subnet.prefixLength) } ?? found.address
            },
            gateway6: address6?.gateway, mac: interface?.mac, ports: ports)
    }

    private func release(_ id: String) {
        ports.release(id)
        attached.withLock { _ = $0.remove(id) }
    }
}

// MARK: - What crashes leave

extension BridgeNetwork {
    /// Disconnects what is on record or holds an address but belongs to no living pod, and removes pinned namespaces
    /// and rules of such pods. What this process attached itself is never touched.
    ///
    /// - Returns: the ids that were cleaned up, and what could not be.
    package func collectGarbage(living: Set<String>) -> (removed: [String], problems: [String]) {
        let kept = attached.withLock { living.union($0) }
        var removed: Set<String> = []
        var problems: [String] = []
        do {
            for record in try host.records() where !kept.contains(record.attachment.containerID) {
                clean(record.attachment.containerID, &removed, &problems) { () throws(CNIHostError) in
                    try delete(record)
                }
            }
            for (id, interface) in try leases() where !kept.contains(id) && !removed.contains(id) {
                clean(id, &removed, &problems) { () throws(CNIHostError) in
                    try host.delete(NetworkAttachment(containerID: id, namespacePath: "", interface: interface))
                }
            }
            try PacketFilter().removePluginRules(network: configuration.name) { !kept.contains($0) }
            // Namespaces are the node's, whichever networks they are on.
            for id in try configuration.nodeBridge == nil ? pins() : [] where !kept.contains(id) {
                try NetworkNamespace.remove(at: "\(pinDirectory)/\(id)")
                removed.insert(id)
            }
        } catch {
            problems.append("\(error)")
        }
        return (removed.sorted(), problems)
    }

    private func clean(
        _ id: String, _ removed: inout Set<String>, _ problems: inout [String],
        _ body: () throws(CNIHostError) -> Void
    ) {
        do throws(CNIHostError) {
            try body()
            release(id)
            removed.insert(id)
        } catch {
            problems.append(error.description)
        }
    }

    /// As our plugin and host-local keep them.
    private var addressLeases: AddressLeases {
        AddressLeases(dataDirectory: "\(stateDirectory)/ipam", network: configuration.name)
    }

    /// The containers that hold an address, with their devices.
    private func leases() throws(CNIError) -> [String: String] {
        var devices: [String: String] = [:]
        for holder in try addressLeases.all().values { devices[holder.containerID] = holder.interface }
        return devices
    }

    /// Who holds an address; nil: nobody, or it cannot be told.
    private func holder(of address: IPAddress) -> String? { try? addressLeases.holder(of: address)?.containerID }

    /// Who is attached, or holds an address.
    func containers() throws -> Set<String> {
        Set(try host.records().map(\.attachment.containerID)).union(try leases().keys)
    }

    /// Whether it is attached, or something of it could not be undone.
    func isOnRecord(_ id: String) throws(KernelError) -> Bool { try !host.records(of: id).isEmpty }

    /// Whether anything is attached, or was when a crash came in between.
    func isInUse() throws -> Bool {
        guard try host.records().isEmpty else { return true }
        return try !leases().isEmpty
    }

    private func pins() throws(KernelError) -> [String] { try Self.entries(pinDirectory) }

    private static func entries(_ directory: String) throws(KernelError) -> [String] {
        do throws(KernelError) {
            return try File.list(directory)
        } catch {
            if error.errno == ENOENT { return [] }
            throw error
        }
    }

    /// Takes the network away: every attachment, the bridge, the rules (the plugins' shared chains only when no other
    /// program has entries in them), leases, pinned namespaces, the cache. Forwarding is switched off again if it was
    /// off before and no other bridge needs it.
    ///
    /// - Returns: what could not be removed.
    package func removeLeftovers() -> [String] {
        ports.clear()
        attached.withLock { $0 = [] }
        var problems = collectGarbage(living: []).problems
        do {
            try fabric.uninstall(configuration.name, bridge: device.name)
            try removeRules()
            try PacketFilter().removeUnusedPortmapChains()
        } catch {
            problems.append("\(error)")
        }
        do {
            let owner = try device.owner()
            if owner == .us || owner == .abandoned { try device.delete() }
            // Overlays have switched IPv6's on, and left it so while there was a bridge; what was before is in the directory.
            for isV6 in [false, true] { try Forwarding(isV6: isV6, directory: stateDirectory).restore() }
            for directory in [stateDirectory, pinDirectory, "\(configuration.dataDirectory)/cni"] {
                try Tree.remove(directory)
            }
        } catch {
            problems.append("\(error)")
        }
        return problems
    }

    private func removeRules() throws(NetworkError) {
        for isV6 in network6 == nil ? [false] : [false, true] {
            let filter: PacketFilter
            do throws(NetworkError) {
                filter = try PacketFilter(isV6: isV6)
            } catch {
                // The program went: what it made cannot be seen, and must not keep the rest from going.
                if isV6, error.kind == .missingProgram { continue }
                throw error
            }
            for table in ["raw", "mangle", "filter", "nat"] {
                for rule in try filter.rules(table: table) where rule.comment == ruleMark { try filter.remove(rule) }
            }
        }
    }

    /// Takes away the bridge, the rules and the leases of a network that nobody is attached to; the node's stay.
    func removeDevice() throws(NetworkError) {
        try fabric.uninstall(configuration.name, bridge: device.name)
        try removeRules()
        do throws(KernelError) {
            let owner = try device.owner()
            if owner == .us || owner == .abandoned { try device.delete() }
            try Tree.remove(leaseDirectory)
        } catch {
            throw NetworkError(.failed, error.description)
        }
    }
}
