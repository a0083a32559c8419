import AgentCore
import Model
import Networking
import Wire

/// Who is on the networks that users made, as far as this node runs them: looked up once for all whose hosts files name
/// them.
struct NetworkMembers: Sendable {
    private struct Member: Sendable {
        let task: TaskID
        let container: ContainerID
        let address: String
        let names: [String]
    }

    /// By network, in the order of the tasks' ids.
    private var members: [String: [Member]] = [:]

    /// Others that a hosts file of one pod may name.
    static let most = 2048

    /// - Parameter records: of all tasks of this node.
    init(_ records: [TaskRecord]) {
        let present = records.filter { $0.isOnNetworks && $0.endpoints?.isEmpty == false }
        for record in present.sorted(by: { $0.assignment.task < $1.assignment.task }) {
            for endpoint in record.endpoints ?? [] where endpoint.network != Model.Network.nodeNetwork {
                members[endpoint.network, default: []].append(
                    Member(
                        task: record.assignment.task, container: record.container.id, address: endpoint.host,
                        names: Self.names(record.assignment, on: endpoint.network)))
            }
        }
    }

    /// Who a pod reaches by name: itself, and those who run on the networks that it is on and users made.
    static func peers(
        of assignment: TaskAssignment, _ hostname: String, _ endpoints: [NetworkEndpoint],
        among members: @autoclosure () -> NetworkMembers
    ) -> [TaskFiles.Peer] {
        // On each further network it has its host name too.
        var peers = endpoints.dropFirst().map { TaskFiles.Peer(address: $0.host, names: [hostname]) }
        let own = endpoints.filter { $0.network != Model.Network.nodeNetwork }
        guard !own.isEmpty else { return peers }
        peers += own.map { TaskFiles.Peer(address: $0.host, names: names(assignment, on: $0.network)) }
        let members = members()
        for endpoint in own {
            let links = assignment.pod.attachments.first { $0.network == endpoint.network }?.links ?? [:]
            for other in members.members[endpoint.network] ?? [] where other.task != assignment.task {
                guard peers.count < most else { return peers }
                // What this pod alone calls it.
                let called = links.isEmpty ? [] : links.filter { $0.value == other.container.text }.keys.sorted()
                peers.append(TaskFiles.Peer(address: other.address, names: Self.unique(other.names + called)))
            }
        }
        return peers
    }

    /// What a pod is called on a network, each name once.
    private static func names(_ assignment: TaskAssignment, on network: String) -> [String] {
        var names = [assignment.instanceName]
        if assignment.kind == .service { names.append(assignment.workloadName) }
        names += assignment.pod.attachments.first { $0.network == network }?.aliases ?? []
        names += assignment.containers.prefix(1).map { String($0.text.prefix(12)) }
        if !assignment.pod.hostname.isEmpty { names.append(assignment.pod.hostname) }
        return unique(names)
    }

    private static func unique(_ names: [String]) -> [String] {
        var seen: Set<String> = []
        return names.filter { seen.insert($0).inserted }
    }
}
