import ArgumentParser
import Model
import Wire

/// `martlet device …`
struct DeviceCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "device", abstract: "GPUs of nodes, and who has them.",
        subcommands: [DeviceList.self, DeviceInspect.self, DeviceClear.self])
}

/// Whose devices are meant.
struct DevicePlace: ParsableArguments {
    @Option(help: "Of this node only.", completion: .nodes) var node: String?

    var query: [(String, String)] { node.map { [("node", $0)] } ?? [] }
}

struct DeviceList: AsyncParsableCommand {
    static let configuration = CommandConfiguration(commandName: "ls", abstract: "List what nodes report.")
    @OptionGroup var connection: ConnectionOptions
    @OptionGroup var format: FormatOptions
    @OptionGroup var place: DevicePlace

    func run() async throws {
        let views: [DeviceView] = try await connection.cluster.get(APIPaths.devices, query: place.query)
        var table = Table("Id", "Node", "Model", "Memory", "Driver", "State", "Used by")
        for view in views {
            let device = view.device
            try table.add(
                view, device.id, view.nodeName,
                [device.model ?? device.vendor, device.profile].compactMap(\.self).joined(separator: " "),
                device.memoryBytes.map(ByteSize.text) ?? "", device.driverVersion ?? "", Self.state(device),
                view.holders.map(Self.words).joined(separator: ", "))
        }
        try table.print(format)
    }

    private static func state(_ device: NodeDevice) -> String {
        if device.isGone { return "gone" }
        return device.health.state.rawValue + (device.isDivided ? ", divided" : "")
    }

    private static func words(_ holder: DeviceView.Holder) -> String {
        let name = holder.task != nil ? holder.name : holder.isForgotten ? "(forgotten)" : "(other)"
        return holder.sharing == .share ? "\(name) (share)" : name
    }
}

struct DeviceInspect: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "inspect", abstract: "Show everything about devices, as JSON.")
    @OptionGroup var connection: ConnectionOptions
    @OptionGroup var format: InspectOptions
    @OptionGroup var place: DevicePlace
    @Argument(completion: .devices) var devices: [String]

    func run() async throws {
        try await format.print(devices) { device -> DeviceView in
            try await connection.cluster.get("\(APIPaths.devices)/\(escaped(device))", query: place.query)
        }
    }
}

struct DeviceClear: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "clear", abstract: "Say that a sick device was seen to.",
        discussion: """
            What its driver told of it is forgotten, and its node looks at it anew: what still fails stays sick. Ends with 1 \
            when it is unusable afterwards, too.
            """)
    @OptionGroup var connection: ConnectionOptions
    @Argument(completion: .nodes) var node: String
    @Argument(help: "Its id or alias.", completion: .devices) var device: String

    func run() async throws {
        let cleared: ClearedDevice = try await connection.cluster.send(
            "POST", "\(APIPaths.nodes)/\(escaped(node))/devices/\(escaped(device))/clear")
        for reason in cleared.forgotten { Output.line("forgotten: \(reason)") }
        let reasons = cleared.health.reasons.joined(separator: "; ")
        guard cleared.health.state != .unusable else {
            throw CommandFailure("the device \(cleared.id) is unusable all the same: \(reasons)")
        }
        Output.line("\(cleared.id) is \(cleared.health.state.rawValue)" + (reasons.isEmpty ? "" : ": \(reasons)"))
    }
}
