import CNISpec
import JSON
import Model
import Wire

/// What may be asked of a network, by its driver.
extension MasterCore {
    /// Bytes of a CNI configuration list.
    private static let longestConfiguration = 64 << 10

    func driver(_ text: String) throws(APIProblem) -> Network.Driver {
        guard !text.isEmpty else { return .bridge }
        guard let driver = Network.Driver(rawValue: text) else {
            throw APIProblem(
                .unsupported,
                "the network driver \(Admission.quoted(text)) is not supported: choose bridge (on one node), overlay (on all "
                    + "nodes) or cni (by the CNI plugins of each node)")
        }
        if driver == .cni, acting.confinement != nil {
            throw APIProblem(
                .forbidden, "\(acting.title) may not run CNI plugins of nodes: ask an operator for the network")
        }
        return driver
    }

    /// Refuses options that are not known, are another driver's or cannot be honoured.
    func admit(_ body: CreateNetwork, _ driver: Network.Driver) throws(APIProblem) {
        for (key, value) in body.options.sorted(by: { $0.key < $1.key }) {
            if let why = try refusal(of: key, value, driver, isIPv6: body.wantsIPv6) {
                throw APIProblem(.badRequest, "$.options: \(Admission.quoted(key)) \(why)")
            }
        }
        switch driver {
        case .overlay: return
        case .bridge:
            try refuse([("vni", body.vni != nil)]) { _ in
                "the driver bridge has no VXLAN network identifier: leave it out, or choose the driver overlay"
            }
        case .cni:
            let isNamed: (String?) -> Bool = { $0.map { !$0.isEmpty } ?? false }
            let fields = [
                ("vni", body.vni != nil), ("subnet", isNamed(body.subnet)), ("gateway", isNamed(body.gateway)),
                ("subnet6", body.wantsIPv6), ("range", isNamed(body.range)), ("reserved", !body.reserved.isEmpty),
                ("isInternal", body.isInternal),
            ]
            try refuse(fields) { _ in "the CNI configuration says this for the driver cni: leave it out" }
        }
    }

    private func refuse(_ fields: [(String, Bool)], _ why: (String) -> String) throws(APIProblem) {
        if let field = fields.first(where: \.1)?.0 { throw APIProblem(.badRequest, "$.\(field): \(why(field))") }
    }

    /// What an option of the driver is wrong with; nil: nothing.
    private func refusal(
        of key: String, _ value: String, _ driver: Network.Driver, isIPv6: Bool
    ) throws(APIProblem) -> String? {
        guard let option = Network.Option(rawValue: key) else {
            return "is no option of the driver \(driver.rawValue) that is supported"
        }
        let drivers: Set<Network.Driver> =
            switch option {
            case .masquerade, .communication, .hostAddress, .device: [.bridge]
            case .mtu: [.bridge, .overlay]
            case .vni, .encrypted: [.overlay]
            case .cniConfiguration: [.cni]
            }
        guard drivers.contains(driver) else {
            let names = drivers.map(\.rawValue).sorted().joined(separator: " or ")
            return "is an option of the driver \(names), not of \(driver.rawValue)"
        }
        switch option {
        case .device: return try deviceRefusal(value, key)
        case .communication:
            guard let truth = Network.truth(value) else { return "is true or false" }
            return truth ? nil : "is not supported with the value false: members of a network reach each other"
        case .encrypted: return value.isEmpty || Network.truth(value) != nil ? nil : "is true, false or empty"
        case .masquerade: return Network.truth(value) == nil ? "is true or false" : nil
        case .hostAddress:
            let isAddress = IPAddress(value).map { $0.family == .v4 } ?? false
            return isAddress ? nil : "is an IPv4 address of the node, not \(Admission.quoted(value))"
        case .mtu:
            let bounds = (isIPv6 ? 1280 : 576)...(driver == .bridge ? 65_535 : 65_465)
            guard let mtu = Int(value), bounds.contains(mtu) else {
                return "is between \(bounds.lowerBound) and \(bounds.upperBound)\(isIPv6 ? " with IPv6" : ""), not "
                    + Admission.quoted(value)
            }
            return nil
        case .vni:
            guard let vni = Int(value), Network.vnis.contains(vni) else {
                return "is one number between 1 and \(Network.vnis.upperBound), not \(Admission.quoted(value))"
            }
            return nil
        case .cniConfiguration: return Self.configurationRefusal(value)
        }
    }

    private func deviceRefusal(_ value: String, _ key: String) throws(APIProblem) -> String? {
        guard acting.confinement == nil else {
            throw APIProblem(.forbidden, "\(acting.title) may not name devices of nodes: leave \(key) out")
        }
        guard CNINames.isInterface(value) else {
            return "is a device's name of at most 15 characters, not \(Admission.quoted(value))"
        }
        if let other = state.networks.values.first(where: { $0[.device] == value }) {
            throw APIProblem(
                .conflict, "the device \(value) is that of \(title(of: other)): choose another name")
        }
        return nil
    }

    private static func configurationRefusal(_ text: String) -> String? {
        let bytes = Array(text.utf8)
        guard bytes.count <= longestConfiguration else {
            return "has \(bytes.count) bytes: a CNI configuration list has at most \(longestConfiguration)"
        }
        do throws(JSONError) {
            _ = try NetworkConfigurationList.parse(bytes)
            return nil
        } catch {
            return "is no CNI configuration list: \(error)"
        }
    }

    /// The VXLAN number of a new overlay, as asked for or chosen.
    func vni(for body: CreateNetwork) throws(APIProblem) -> Int {
        let option = body.options[Network.Option.vni.rawValue].flatMap { Int($0) }
        if let vni = body.vni, let option, vni != option {
            throw APIProblem(
                .badRequest,
                "$.vni: \(vni) is not \(option), which \(Network.Option.vni.rawValue) says: name one of them")
        }
        guard let vni = body.vni ?? option else {
            guard let free = state.indexes.pools.freeVNI() else {
                throw APIProblem(.conflict, "no VXLAN network identifier is free for another network")
            }
            return free
        }
        guard Network.vnis.contains(vni) else {
            throw APIProblem(
                .badRequest, "$.vni: \(vni) is not between \(Network.vnis.lowerBound) and \(Network.vnis.upperBound)")
        }
        if let other = state.indexes.pools.network(withVNI: vni).flatMap({ state.networks[$0] }) {
            throw APIProblem(
                .conflict,
                "the VXLAN network identifier \(vni) is that of \(title(of: other)): choose another, or none")
        }
        return vni
    }
}

extension CreateNetwork {
    /// Whether anything of it asks for IPv6.
    var wantsIPv6: Bool {
        isIPv6 || [subnet6, gateway6].contains { $0.map { !$0.isEmpty } ?? false }
    }
}
