import CNISpec
import Glibc
import JSON
import Kernel
import Synchronization

/// A network with the driver `cni`.
package struct CNINetworkConfiguration: Sendable, Equatable {
    package enum Source: Sendable, Equatable {
        /// The text of a network configuration list.
        case text(String)
        /// The name of a network of the node's directory of lists.
        case named(String)
    }

    /// By what its attachments are found again; other than the name that its list has for the plugins.
    package var name: String
    package var source: Source
    /// Plugins are asked for their STATUS before a pod is attached.
    package var asksStatus = false

    package init(name: String, source: Source, asksStatus: Bool = false) {
        self.name = name
        self.source = source
        self.asksStatus = asksStatus
    }
}

/// The networks of this node that CNI plugins make as a configuration list says: of the network object itself, or of the
/// node's directory of lists.
///
/// What a pod was attached with is on record under the data directory, flushed to disk: DEL gets the same list and the
/// last result whatever became of the list, this process and the machine. The records of a list are in a directory
/// called as it, together with the list itself, so that attachments whose record is damaged are detached too.
///
/// All functions block. Calls about one pod must not overlap; others may.
package final class CNINetworks: Sendable {
    private let node: BridgeNetworkConfiguration
    /// The node's lists; nil: only what networks bring along.
    package let directory: CNIDirectory?
    private let own: [String: String]
    /// What the names of lists must not begin with, as plugins know other networks by them.
    private let reservedPrefixes: [String]
    private let state = Mutex(State())

    private struct State {
        /// What this process attached: never garbage, however old the list of the living is that we are given.
        var attached: Set<String> = []
        /// Published ports by who has them; nil until the records were read.
        var ports: [PortMapping: String]?
    }

    /// - Parameters:
    ///   - node: the node's own network, whose directories and plugins these use too.
    ///   - own: plugins that are not looked for in the plugin directories, with the absolute paths of their programs.
    ///   - reservedPrefixes: what the names of the node's other networks begin with; its own is always reserved.
    package init(
        _ node: BridgeNetworkConfiguration, directory: CNIDirectory?, own: [String: String] = [:],
        reservedPrefixes: [String] = []
    ) {
        self.node = node
        self.directory = directory
        var own = own
        if own[Self.overlay] == nil, !node.overlayProgram.isEmpty { own[Self.overlay] = node.overlayProgram }
        self.own = own
        self.reservedPrefixes = reservedPrefixes
    }

    private static let overlay = "martlet-overlay"

    /// Where the records are.
    package var recordDirectory: String { "\(node.dataDirectory)/networks/cni" }

    /// The list of a network, as it is now.
    ///
    /// - Throws: `NetworkError` with what is wrong with it, or which lists there are.
    package func list(of network: CNINetworkConfiguration) throws(NetworkError) -> NetworkConfigurationList {
        let list: NetworkConfigurationList
        switch network.source {
        case .text(let text):
            do throws(JSONError) {
                list = try NetworkConfigurationList.parse(Array(text.utf8))
            } catch {
                throw NetworkError(
                    .configuration,
                    "the CNI list of the network \(network.name) is not valid: \(CNIText.line(error.description))")
            }
        case .named(let name):
            guard let directory else {
                throw NetworkError(
                    .configuration,
                    "the network \(network.name) wants the CNI list \(name), but this node has no directory of lists")
            }
            list = try directory.list(named: name)
        }
        if list.name == node.name || reservedPrefixes.contains(where: { list.name.hasPrefix($0) }) {
            throw NetworkError(
                .configuration,
                "the CNI list of the network \(network.name) is called \(list.name), as networks of Martlet's own are; "
                    + "give it another name")
        }
        return list
    }

    func host(_ list: NetworkConfigurationList) -> CNIHost {
        CNIHost(
            list: list, pluginDirectories: node.pluginDirectories, own: own,
            cacheDirectory: "\(recordDirectory)/\(list.name)", isDurable: true,
            timeoutMilliseconds: node.timeoutMilliseconds)
    }

    /// Whether pods can be attached to a network now.
    ///
    /// - Returns: what is in the way, one sentence each; nothing when the network is ready.
    package func problems(of network: CNINetworkConfiguration) -> [String] {
        do throws(NetworkError) {
            return host(try list(of: network)).status().map(\.description)
        } catch {
            return [error.description]
        }
    }

    /// Connects a pod.
    ///
    /// - Parameters:
    ///   - id: the task's.
    ///   - namespacePath: its pinned network namespace.
    ///   - interface: the device's name inside.
    ///   - asked: what the user wants; refused by name when no plugin of the list declares the capability, or when what
    ///     the plugins made is something else.
    ///   - offered: what plugins get that declare it.
    /// - Throws: `NetworkError`; nothing is left behind then, or it is on record for the garbage collection.
    package func attach(
        _ id: String, to network: CNINetworkConfiguration, namespacePath: String, interface: String,
        asked: CapabilityArguments = CapabilityArguments(), offered: CapabilityArguments = CapabilityArguments()
    ) throws(NetworkError) -> EndpointAddresses {
        let list = try list(of: network)
        if let name = asked.unserved(by: list).first {
            throw NetworkError(
                .configuration,
                "no plugin of the CNI list \(list.name) declares the capability \(name), so that what was asked for "
                    + "cannot be had on the network \(network.name): leave it out, or choose another network")
        }
        let host = host(list)
        if network.asksStatus, let problem = host.status().first {
            throw NetworkError(.failed, problem.description)
        }
        state.withLock { _ = $0.attached.insert(id) }
        do throws(NetworkError) {
            try keep(list, for: network)
            try detachOthers(id, network, interface)
            try reserve(asked.portMappings, for: id)
            let attachment = NetworkAttachment(
                containerID: id, namespacePath: namespacePath, interface: interface,
                capabilities: asked.completed(by: offered))
            return try attach(attachment, network, host, asked)
        } catch {
            // What is left is on record, and garbage from now on.
            release(id)
            throw error
        }
    }

    private func attach(
        _ attachment: NetworkAttachment, _ network: CNINetworkConfiguration, _ host: CNIHost,
        _ asked: CapabilityArguments
    ) throws(NetworkError) -> EndpointAddresses {
        do throws(CNIHostError) {
            let result = try host.add(attachment, owner: network.name) { (result) throws(CNIHostError) -> Void in
                if let problem = CNIResultCheck(attachment, asked).problem(in: result) {
                    throw host.failure(.add, "", attachment, problem)
                }
            }
            guard let addresses = Self.addresses(in: result, attachment) else {
                // Unreachable: the inspection found an address.
                throw host.failure(.add, "", attachment, "the result has no address")
            }
            return addresses
        } catch {
            throw NetworkError(.failed, error.description)
        }
    }

    /// What a try that was cut off has left of the same pod on the same network, under another device.
    private func detachOthers(
        _ id: String, _ network: CNINetworkConfiguration, _ interface: String
    ) throws(NetworkError) {
        for record in try records(of: id) where record.owner == network.name && record.attachment.interface != interface
        {
            try delete(record)
        }
    }

    private func delete(_ record: CNIRecord, isEnd: Bool = false) throws(NetworkError) {
        let isOurs = record.list.plugins.contains { $0.type == Self.overlay }
        do throws(CNIHostError) {
            // Says so to our plugin; others may ignore it.
            try host(record.list).delete(
                record, arguments: isEnd && isOurs ? ["IgnoreUnknown": "1", "MARTLET_END": "1"] : [:])
        } catch {
            throw NetworkError(.failed, error.description)
        }
    }

    /// Disconnects a pod from one network; one that is not connected is no error. May be repeated until it succeeds.
    ///
    /// - Parameters:
    ///   - name: the network's, as at `attach`.
    ///   - isEnd: see `BridgeNetwork.detach`.
    package func detach(_ id: String, from name: String, isEnd: Bool = false) throws(NetworkError) {
        try detach(id, isEnd: isEnd, only: name)
        if try records(of: id).isEmpty { release(id) }
    }

    /// Disconnects a pod from all of them; costs next to nothing for one that is on none.
    package func detach(_ id: String, isEnd: Bool = false) throws(NetworkError) {
        try detach(id, isEnd: isEnd, only: nil)
        release(id)
    }

    /// - Parameter name: the only network that is meant; nil: all.
    private func detach(_ id: String, isEnd: Bool, only name: String?) throws(NetworkError) {
        guard CNINames.isName(id) else {
            throw NetworkError(.configuration, "\(JSONPathElement.quoted(id)) is no id of a pod")
        }
        var problems: [String] = []
        for place in try places() {
            let contents = try place.contents(of: id)
            let meant = contents.records.filter { name == nil || $0.owner == name }
            for record in meant {
                do throws(NetworkError) {
                    try delete(record, isEnd: isEnd)
                } catch {
                    problems.append(error.description)
                }
            }
            problems += contents.problems.map(\.description)
            if contents.damaged.isEmpty { continue }
            // Whose a damaged record was is not known: perhaps the network's that has used the list last. What is left
            // goes with the pod.
            let kept = place.kept
            if name == nil || meant.isEmpty && kept?.owner == name {
                problems += contents.damaged.compactMap { salvage($0, place, kept) }
            }
        }
        if !problems.isEmpty { throw NetworkError(.failed, problems.joined(separator: "; ")) }
    }

    /// Detaches what a damaged record was of, with the list that its network had last.
    ///
    /// - Returns: why that cannot be done.
    private func salvage(_ damaged: ValidAttachment, _ place: Place, _ kept: Place.Kept?) -> String? {
        guard let list = kept?.list ?? directory?.refresh().entries[place.name]?.list else {
            return
                "the record of \(damaged.containerID) in the CNI network \(place.name) is damaged, and there is no list "
                + "by which it could be detached: put the list back, or remove \(place.directory)"
        }
        do throws(CNIHostError) {
            // Without the record its path is not known either, but where pods' namespaces are pinned.
            let pin = "\(node.runDirectory)/netns/\(damaged.containerID)"
            try host(list).delete(
                NetworkAttachment(
                    containerID: damaged.containerID, namespacePath: File.exists(pin) ? pin : "",
                    interface: damaged.interface))
            return nil
        } catch {
            return error.description
        }
    }

    /// How a pod can be reached on a network; nil for one that is not connected.
    package func addresses(of id: String, on name: String) throws(NetworkError) -> EndpointAddresses? {
        guard let record = try record(of: id, on: name), let result = record.result else { return nil }
        return Self.addresses(in: result, record.attachment)
    }

    /// All that the plugins said of a pod on a network: every address, routes, name service; nil for one that is not
    /// connected.
    package func result(of id: String, on name: String) throws(NetworkError) -> CNIResult? {
        try record(of: id, on: name)?.result
    }

    /// Asks the plugins whether a pod is still connected as it was.
    package func check(_ id: String, on name: String) throws(NetworkError) {
        guard let record = try record(of: id, on: name) else {
            throw NetworkError(.failed, "\(id) is not connected to the network \(name)")
        }
        do throws(CNIHostError) {
            try host(record.list).check(record.attachment)
        } catch {
            throw NetworkError(.failed, error.description)
        }
    }

    private func record(of id: String, on name: String) throws(NetworkError) -> CNIRecord? {
        try records(of: id).first { $0.owner == name && $0.isComplete }
    }

    private func records(of id: String) throws(NetworkError) -> [CNIRecord] {
        guard CNINames.isName(id) else { return [] }
        var records: [CNIRecord] = []
        for place in try places() { records += try place.contents(of: id).records }
        return records
    }

    /// The address by which the pod is known: the first of its own device, of IPv4 where there is one.
    static func addresses(in result: CNIResult, _ attachment: NetworkAttachment) -> EndpointAddresses? {
        let inside = result.addresses.filter { address in
            address.interface.map { result.interfaces[$0].sandbox != nil } ?? result.interfaces.isEmpty
        }
        let candidates = inside.isEmpty ? result.addresses : inside
        guard let address = candidates.first(where: { $0.address.address.family == .v4 }) ?? candidates.first
        else { return nil }
        let interface = address.interface.map { result.interfaces[$0] }
        return EndpointAddresses(
            interface: interface?.name ?? attachment.interface, address: address.address, gateway: address.gateway,
            mac: interface?.mac, ports: attachment.capabilities.portMappings)
    }
}

// MARK: - Published ports

extension CNINetworks {
    /// Takes the ports for a pod, all or none.
    private func reserve(_ ports: [PortMapping], for id: String) throws(NetworkError) {
        for port in ports {
            guard port.hostPort > 0, port.containerPort > 0 else {
                throw NetworkError(.configuration, "a published port needs two numbers from 1 on")
            }
            try PortCheck.requireFree(port)
        }
        var recorded: [CNIRecord] = []
        if !ports.isEmpty, state.withLock({ $0.ports == nil }) {
            for place in try places() { recorded += try place.contents().records }
        }
        let failure = state.withLock { state -> NetworkError? in
            if ports.isEmpty { return nil }
            var taken = state.ports ?? [:]
            if state.ports == nil {
                for record in recorded {
                    for port in record.attachment.capabilities.portMappings {
                        taken[port] = record.attachment.containerID
                    }
                }
            }
            defer { state.ports = taken }
            for port in ports {
                if let (_, owner) = taken.first(where: { $0.value != id && Self.collide($0.key, port) }) {
                    return NetworkError(
                        .portTaken,
                        "port \(port.hostPort)/\(port.transport.rawValue) is published by task \(owner) already; "
                            + "publish another port")
                }
            }
            for port in ports { taken[port] = id }
            return nil
        }
        if let failure { throw failure }
    }

    private static func collide(_ left: PortMapping, _ right: PortMapping) -> Bool {
        guard left.hostPort == right.hostPort, left.transport == right.transport else { return false }
        guard let one = left.hostAddress, let two = right.hostAddress else { return true }
        return one == two || one.family == two.family && (one.isUnspecified || two.isUnspecified)
    }

    private func release(_ id: String) {
        state.withLock { state in
            state.ports = state.ports?.filter { $0.value != id }
            state.attached.remove(id)
        }
    }
}

// MARK: - What is on disk

extension CNINetworks {
    /// The directory of one list's records.
    private struct Place {
        /// The list's.
        let name: String
        let directory: String

        struct Kept {
            let list: NetworkConfigurationList
            let owner: String
        }

        private static let file = "list"

        func contents(of id: String? = nil) throws(NetworkError) -> CNICache.Contents {
            do throws(KernelError) {
                return try CNICache(directory: directory).contents(network: name, container: id)
            } catch {
                throw NetworkError(.failed, error.description)
            }
        }

        /// The list that a pod was attached by last, and the network that it was of; nil when that is damaged.
        var kept: Kept? {
            guard let bytes = try? File.readRegular("\(directory)/\(Self.file)", limit: CNICache.limits.bytes),
                let value = try? JSONValue.parse(bytes, limits: CNICache.limits)
            else { return nil }
            let reader = JSONReader(value)
            guard let owner = try? reader.string("owner"), let member = try? reader.object("list"),
                let list = try? NetworkConfigurationList(member), list.name == name
            else { return nil }
            return Kept(list: list, owner: owner)
        }

        func keep(_ kept: Kept) throws(KernelError) {
            if let before = self.kept, before.list == kept.list, before.owner == kept.owner { return }
            try File.makeDirectories(directory)
            let object: JSONObject = ["owner": .string(kept.owner), "list": kept.list.json]
            try File.replace("\(directory)/\(Self.file)", with: JSONValue.object(object).serialized())
        }

        /// Goes with the last record.
        func removeIfEmpty() throws(KernelError) {
            let files = try File.list(directory)
            guard files.allSatisfy({ $0 == Self.file || $0.hasSuffix(".new") }) else { return }
            try Tree.remove(directory)
        }
    }

    private func places() throws(NetworkError) -> [Place] {
        do throws(KernelError) {
            return try File.list(recordDirectory).sorted().filter { CNINames.isName($0) }
                .map { Place(name: $0, directory: "\(recordDirectory)/\($0)") }
        } catch {
            if error.errno == ENOENT { return [] }
            throw NetworkError(.failed, error.description)
        }
    }

    private func keep(_ list: NetworkConfigurationList, for network: CNINetworkConfiguration) throws(NetworkError) {
        do throws(KernelError) {
            try Place(name: list.name, directory: "\(recordDirectory)/\(list.name)").keep(
                Place.Kept(list: list, owner: network.name))
        } catch {
            throw NetworkError(.failed, error.description)
        }
    }
}

// MARK: - What crashes leave

extension CNINetworks {
    /// Disconnects what is on record but belongs to no living pod, one after another whatever fails, and has the
    /// plugins of each list remove what is of nobody (GC). What this process attached itself is never touched.
    ///
    /// - Returns: what could not be cleaned up.
    package func collectGarbage(living: Set<String>) -> [String] {
        let kept = state.withLock { living.union($0.attached) }
        let places: [Place]
        do throws(NetworkError) {
            places = try self.places()
        } catch {
            return [error.description]
        }
        return places.flatMap { collectGarbage($0, kept) }
    }

    private func collectGarbage(_ place: Place, _ kept: Set<String>) -> [String] {
        let contents: CNICache.Contents
        do throws(NetworkError) {
            contents = try place.contents()
        } catch {
            return [error.description]
        }
        var problems = contents.problems.map(\.description)
        for record in contents.records where !kept.contains(record.attachment.containerID) {
            do throws(NetworkError) {
                try delete(record)
                release(record.attachment.containerID)
            } catch {
                problems.append(error.description)
            }
        }
        let last = place.kept
        for damaged in contents.damaged where !kept.contains(damaged.containerID) {
            if let problem = salvage(damaged, place, last) { problems.append(problem) }
        }
        if let list = last?.list ?? contents.records.last?.list {
            problems += host(list).collectGarbage().map(\.description)
        }
        // A pod that just comes makes the directory again where it went too early.
        if problems.isEmpty, state.withLock({ $0.attached.isEmpty }) {
            do throws(KernelError) {
                try place.removeIfEmpty()
            } catch {
                problems.append(error.description)
            }
        }
        return problems
    }

    /// Takes away all of them with all that is attached.
    ///
    /// - Returns: what could not be removed.
    package func removeLeftovers() -> [String] {
        state.withLock { $0 = State() }
        return collectGarbage(living: [])
    }
}
