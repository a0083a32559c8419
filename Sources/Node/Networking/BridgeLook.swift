import CNISpec
import Glibc
import Kernel
import Netfilter
import Netlink
import Synchronization

extension BridgeFabric {
    /// Most differences that are told.
    private static let mostWords = 1_000

    func look(repairs: Bool, _ parts: NetworkParts) -> [String] {
        var found = state.withLock { state in
            var found: [String] = []
            func look(_ body: () throws(KernelError) -> [String]) {
                do throws(KernelError) {
                    found += try body()
                } catch {
                    found.append(error.description)
                }
            }
            if state.networks.isEmpty { return found }
            // The elements before the ports, which are put into the group that is asked for them.
            if parts.contains(.filter) {
                if repairs, state.lack != nil {
                    look { () throws(KernelError) in
                        try makeFilter(&state)
                        return []
                    }
                }
                if state.lack == nil {
                    look { () throws(KernelError) in
                        var socket = try NetfilterSocket()
                        let words = try lookAtFilter(state, repairs: repairs, &socket)
                        socket.closeUnawaited()
                        return words
                    }
                }
            }
            if parts.contains(.routing) {
                for network in state.networks.values.sorted(by: { $0.name < $1.name }) {
                    look { () throws(KernelError) in try Self.lookAtDevice(of: network, repairs: repairs) }
                }
                look { () throws(KernelError) in try Self.lookAtPorts(state, repairs: repairs) }
                look { () throws(KernelError) in
                    try Self.lookAtNeighbours(state, moving: keeper.moving, repairs: repairs)
                }
            }
            if parts.contains(.filter) {
                look { () throws(KernelError) in try Self.lookAtRules(.v4, state, repairs: repairs) }
                if state.hasV6 || repairs && state.mayHaveRules6 {
                    look { () throws(KernelError) in try Self.lookAtRules(.v6, state, repairs: repairs) }
                    if repairs { state.mayHaveRules6 = state.hasV6 }
                }
            }
            return found
        }
        // Behind the ways that lead to the pods, which have settings for them.
        if parts.contains(.filter) || repairs && !found.isEmpty { found += keeper.look(repairs: repairs) }
        guard found.count > Self.mostWords else { return found }
        return Array(found.prefix(Self.mostWords)) + ["and \(found.count - Self.mostWords) more"]
    }

    // MARK: Bridges

    private static func lookAtDevice(of network: Network, repairs: Bool) throws(KernelError) -> [String] {
        let device = network.device
        var words: [String] = []
        switch try device.owner() {
        case .us: words = try differences(device)
        case .nobody: words = ["the bridge \(device.name) is missing"]
        case .abandoned: words = ["the bridge \(device.name) has no mark"]
        case .someoneElse(let what):
            return ["the bridge \(device.name) of the network \(network.name) is \(what): remove it"]
        }
        for forwarding in network.forwarding where try !forwarding.isOn() {
            words.append("\(forwarding.name) is off")
            if repairs { try forwarding.enable() }
        }
        if repairs, !words.isEmpty { try device.create(mtu: network.mtu) }
        return words
    }

    private static func differences(_ device: BridgeDevice) throws(KernelError) -> [String] {
        var words: [String] = []
        if try !device.isUp() { words.append("the bridge \(device.name) is down") }
        if try !device.hasAddress() { words.append("the address \(device.address) is missing on \(device.name)") }
        if let address6 = device.address6 {
            if try !device.hasAddress6() { words.append("the address \(address6) is missing on \(device.name)") }
            if try !device.hasMAC() { words.append("the bridge \(device.name) has another hardware address") }
        }
        for (name, value) in device.settings where device.setting(name).map({ $0 != value }) ?? false {
            words.append("net.ipv6.conf.\(device.name).\(name) is not \(value)")
        }
        return words
    }

    // MARK: Ports

    /// A device that is not there is on its way out with its pod.
    private static func lookAtPorts(_ state: State, repairs: Bool) throws(KernelError) -> [String] {
        if state.pods.isEmpty { return [] }
        var socket = try NetlinkSocket()
        let links = Dictionary(try Link.all(&socket).map { ($0.name, $0) }) { first, _ in first }
        let entries = Set(try BridgeEntry.all(&socket))
        var found: [String] = []
        for pod in state.pods.values.sorted(by: { $0.id < $1.id }) {
            guard let link = links[pod.device], let network = state.networks[pod.network] else { continue }
            let bridge = links[network.device.name]
            let name = "the device \(link.name) of the pod \(pod.id)"
            let entry = BridgeEntry(pod.mac.bytes, port: link.index)
            var words: [String] = []
            if link.master != bridge?.index ?? -1 { words.append("\(name) hangs off \(network.device.name) no more") }
            if link.group != BridgeFilter.group { words.append("\(name) is in the group \(link.group)") }
            if !link.isUp { words.append("\(name) is down") }
            if let port = link.port, port.learning != false || port.hairpin != true {
                words.append("\(name) is no port as it was made")
            }
            let isWritten = entries.contains(entry)
            if words.isEmpty, !isWritten { words.append("the bridge knows \(pod.mac) of \(name) no more") }
            found += words
            guard repairs, !words.isEmpty, let bridge else { continue }
            do throws(KernelError) {
                try mend(pod, link, bridge, isWritten: isWritten && link.master == bridge.index, &socket)
            } catch {
                // The others are not to wait for this one.
                if error.errno != ENODEV { found.append(error.description) }
            }
        }
        return found
    }

    private static func mend(
        _ pod: BridgedPod, _ link: Link, _ bridge: Link, isWritten: Bool, _ socket: inout NetlinkSocket
    ) throws(KernelError) {
        var change = LinkChange()
        change.group = BridgeFilter.group
        // Told again what it is, the kernel would take it off and put it on.
        if link.master != bridge.index { change.master = bridge.index }
        var port = LinkChange()
        port.port = BridgePort()
        port.port?.hairpin = true
        port.port?.learning = false
        port.isUp = true
        var batch = NetlinkBatch()
        try batch.add(change.request(for: link.name))
        try batch.add(port.request(for: link.name))
        if !isWritten {
            let entry = BridgeEntry(pod.mac.bytes, port: link.index)
            // What was learnt before.
            try batch.add(entry.deletion())
            try batch.add(entry.request())
        }
        try socket.send(batch)
    }

    /// What bridges with IPv6 have written down of the pods on them, which nobody is asked for.
    ///
    /// - Parameter moving: networks whose pods come or go just now: a plugin writes before it is known here what.
    private static func lookAtNeighbours(
        _ state: State, moving: Set<String>, repairs: Bool
    ) throws(KernelError) -> [String] {
        guard state.hasV6 else { return [] }
        var socket = try NetlinkSocket()
        var words: [String] = []
        for network in state.networks.values.sorted(by: { $0.name < $1.name }) where network.device.address6 != nil {
            let index = Int32(bitPattern: if_nametoindex(network.device.name))
            if index == 0 { continue }
            let present = Set(
                try Neighbour.all(family: AF_INET6, interface: index, &socket)
                    .filter { $0.isPermanent && $0.interface == index && $0.address.first != 0xff })
            var wanted: Set<Neighbour> = []
            for pod in state.pods.values where pod.network == network.name {
                for address in pod.addresses where address.family == .v6 {
                    wanted.insert(Neighbour(address.bytes, interface: index, mac: pod.mac.bytes))
                }
            }
            let missing = wanted.subtracting(present)
            let wantedAddresses = Set(wanted.map(\.address))
            let extra = present.subtracting(wanted)
                .filter { !moving.contains(network.name) || wantedAddresses.contains($0.address) }
            func say(_ neighbours: Set<Neighbour>, _ what: String) {
                for address in neighbours.compactMap({ IPAddress(bytes: $0.address) }).sorted() {
                    words.append("the neighbour \(address) of the bridge \(network.device.name) is \(what)")
                }
            }
            say(missing, "missing")
            // Whose hardware address is another's is named once.
            let addresses = Set(missing.map(\.address))
            say(extra.filter { !addresses.contains($0.address) }, "too much")
            guard repairs, !missing.isEmpty || !extra.isEmpty else { continue }
            var batch = NetlinkBatch()
            for neighbour in extra { try batch.add(neighbour.deletion()) }
            for neighbour in missing { try batch.add(neighbour.request()) }
            try socket.send(batch)
        }
        return words
    }

    // MARK: Rules

    func lookAtFilter(
        _ state: State, repairs: Bool, _ socket: inout NetfilterSocket
    ) throws(KernelError) -> [String] {
        var wanted: KeptTable.Elements = [:]
        for pod in state.pods.values { wanted.merge(BridgeFilter.elements(of: pod)) { $0.union($1) } }
        return try BridgeFilter.frames.look(
            wanted, repairs: repairs, isOurs: { Self.isKnown($0, state) }, &socket)
            + BridgeFilter.packets.look([:], repairs: repairs, &socket)
    }

    private static func lookAtRules(
        _ family: IPAddress.Family, _ state: State, repairs: Bool
    ) throws(KernelError) -> [String] {
        let program = family == .v4 ? "iptables" : "ip6tables"
        do throws(NetworkError) {
            let filter = try PacketFilter(isV6: family == .v6)
            var found: [String] = []
            for table in ["mangle", "filter", "nat"] {
                let present = try filter.rules(table: table)
                for network in state.networks.values.sorted(by: { $0.name < $1.name }) {
                    for rule in network.rules[family] ?? [] where rule.table == table && !present.contains(rule) {
                        found.append("the rule '\(rule.sentence)' of \(program)' table \(table) is missing")
                        if repairs { try filter.ensure(rule) }
                    }
                }
                for rule in present where isLeft(rule, state) {
                    found.append("the rule '\(rule.sentence)' of \(program)' table \(table) is too much")
                    if repairs { try filter.remove(rule) }
                }
            }
            return found
        } catch {
            if error.kind == .missingProgram, family == .v6, !state.hasV6 { return [] }
            throw KernelError("look at rules", program, errno: EIO, hint: error.description)
        }
    }

    /// Of a network that users made, of which there is not even the bridge: it is made before its rules, and goes after them.
    private static func isLeft(_ rule: PacketFilter.Rule, _ state: State) -> Bool {
        guard let comment = rule.comment, comment.hasPrefix(BridgeNetwork.ruleMark("")) else { return false }
        let device = String(comment.dropFirst(BridgeNetwork.ruleMark("").count))
        return device.hasPrefix(BridgeNetwork.userPrefix) && if_nametoindex(device) == 0
            && !state.networks.values.contains { $0.device.name == device }
    }
}

extension PacketFilter.Rule {
    /// As it is said to people: without the comment.
    fileprivate var sentence: String {
        var words = [chain] + words
        if let index = words.firstIndex(of: "--comment"), index > 1 { words.removeSubrange((index - 2)...(index + 1)) }
        return words.joined(separator: " ")
    }
}
