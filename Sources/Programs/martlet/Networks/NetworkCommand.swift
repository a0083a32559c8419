import ArgumentParser
import Model
import Wire

/// `martlet network …`
struct NetworkCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "network", abstract: "Networks: containers that reach each other by name, apart from all others.",
        subcommands: [
            NetworkList.self, NetworkCreate.self, NetworkInspect.self, NetworkRemove.self, NetworkConnect.self,
            NetworkDisconnect.self, NetworkPrune.self, NetworkCheckCommand.self,
        ], aliases: ["net"])
}

struct NetworkList: AsyncParsableCommand {
    static let configuration = CommandConfiguration(commandName: "ls", abstract: "List networks.")
    @OptionGroup var connection: ConnectionOptions
    @OptionGroup var format: FormatOptions

    func run() async throws {
        let views: [NetworkView] = try await connection.cluster.get(APIPaths.networks)
        var table = Table("Name", "ID", "Driver", "Subnet", "VNI", "Node", "Created", "Containers")
        for view in views {
            let network = view.network
            try table.add(
                view, network.name, String(network.id.text.prefix(12)), network.driver,
                [network.subnet, network.subnet6].filter { !$0.isEmpty }.joined(separator: ", "),
                network.vni.map { "\($0)" } ?? "", view.nodeName, network.createdAt.ago(),
                "\(view.containers)")
        }
        try table.print(format)
    }
}

struct NetworkInspect: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "inspect", abstract: "Show everything about networks, as JSON.")
    @OptionGroup var connection: ConnectionOptions
    @OptionGroup var format: InspectOptions
    @Argument(completion: .networks) var networks: [String]

    func run() async throws {
        try await format.print(networks) { network -> NetworkView in
            try await connection.cluster.get("\(APIPaths.networks)/\(escaped(network))")
        }
    }
}

struct NetworkRemove: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "rm", abstract: "Remove networks that nothing is attached to.")
    @OptionGroup var connection: ConnectionOptions
    @Argument(completion: .networks) var networks: [String]

    func run() async throws {
        try await forEach(networks) { network in
            try await connection.cluster.delete(APIPaths.networks, network)
            Output.line(network)
        }
    }
}

struct NetworkConnect: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "connect", abstract: "Attach a container to a network, while it runs too.")
    @OptionGroup var connection: ConnectionOptions
    @Option(help: "A further name of the container on the network.") var alias: [String] = []
    @Option(help: "The IPv4 address that it asks for.") var ip: String?
    @Option(help: "The IPv6 address that it asks for.") var ip6: String?
    @Option(
        name: [.customLong("mac-address"), .customLong("mac")], help: "The hardware address of its device.")
    var macAddress: String?
    @Option(
        help:
            "in=10m,out=2m: bits a second to and from it; in-burst, out-burst: bits. On a network with the driver cni.",
        transform: { try TrafficLimits(expression: $0) })
    var bandwidth: TrafficLimits?
    @Argument(completion: .networks) var network: String
    @Argument(completion: .containers) var container: String

    func run() async throws {
        try await connection.cluster.perform(
            "POST", "\(APIPaths.networks)/\(escaped(network))/connect",
            body: ConnectNetwork(
                container: container, aliases: alias, address: ip, address6: ip6, mac: macAddress, bandwidth: bandwidth)
        )
    }
}

struct NetworkDisconnect: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "disconnect", abstract: "Detach a container from a network, while it runs too.")
    @OptionGroup var connection: ConnectionOptions
    @Argument(completion: .networks) var network: String
    @Argument(completion: .containers) var container: String

    func run() async throws {
        try await connection.cluster.perform(
            "POST", "\(APIPaths.networks)/\(escaped(network))/disconnect",
            body: DisconnectNetwork(container: container))
    }
}

struct NetworkPrune: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "prune", abstract: "Remove all networks that nothing is attached to.")
    @OptionGroup var connection: ConnectionOptions
    @Option(name: .shortAndLong, help: "Only those with KEY or KEY=value.") var label: [String] = []

    func run() async throws {
        let removed: RemovedNetworks = try await connection.cluster.send(
            "POST", "\(APIPaths.networks)/prune", body: PruneNetworks(labels: label))
        for name in removed.networks { Output.line(name) }
    }
}
