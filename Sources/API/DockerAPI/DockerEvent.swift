import JSON
import Model
import Wire

/// An event as Docker's clients know it.
struct DockerEvent: Sendable {
    var type: String
    var action: String
    var id: String
    var attributes: [String: String]
    /// `swarm` for what engines know of only in Swarm mode.
    var scope: String
    var time: Timestamp

    private static let locals: Set<String> = ["container", "image", "volume", "network", "daemon"]
    private static let shared: Set<String> = ["node", "service", "secret", "config"]

    /// nil for what Docker has no type for: tokens.
    init?(_ event: Event) {
        type = event.kind
        action = event.action
        id = event.id
        attributes = event.attributes
        time = event.time
        if type == "cluster" {
            type = "daemon"
            action = "reload"
        }
        guard Self.locals.contains(type) || Self.shared.contains(type) else { return nil }
        scope = Self.shared.contains(type) ? "swarm" : "local"
        if attributes["name"] == nil, !event.name.isEmpty { attributes["name"] = event.name }
        switch type {
        case "container": nameAsContainer()
        case "node": nameAsNode()
        case "service": nameAsService()
        // The name is gone, and Docker's clients get the id in its place.
        case "image" where action == "untag": attributes["name"] = id
        default: break
        }
    }

    private mutating func nameAsContainer() {
        switch action {
        case "health_status":
            if let health = attributes.removeValue(forKey: "health") { action = "health_status: \(health)" }
        case "kill":
            if let signal = attributes["signal"].flatMap({ SignalName($0) }) {
                attributes["signal"] = "\(signal.number)"
            }
        default: break
        }
        attributes["node"] = nil
    }

    private mutating func nameAsNode() {
        switch action {
        case "register": action = "create"
        case "ready": change("state.new", "ready")
        case "unreachable": change("state.new", "down")
        default: break
        }
    }

    private mutating func nameAsService() {
        switch action {
        case "update_paused": change("updatestate.new", "paused")
        case "update_settled": change("updatestate.new", "completed")
        case "rollback": change("updatestate.new", "rollback_started")
        default: break
        }
    }

    private mutating func change(_ key: String, _ value: String) {
        action = "update"
        attributes[key] = value
    }

    /// One line of `/events`. Until 1.51 it says some things twice, the older way.
    func line(for version: APIVersion) -> [UInt8] {
        var shown = JSONObject()
        for (key, value) in attributes.sorted(by: { $0.key < $1.key }) { shown[key] = .string(value) }
        var members: JSONObject = [
            "Type": .string(type), "Action": .string(action), "scope": .string(scope),
            "Actor": .object([
                "ID": .string(id), "Attributes": .object(shown),
            ]),
            "time": .integer(time.nanoseconds / 1_000_000_000), "timeNano": .integer(time.nanoseconds),
        ]
        if version < .v1_52, type == "container" || type == "image" {
            members["status"] = .string(action)
            members["id"] = .string(id)
            if let image = attributes["image"], type == "container" { members["from"] = .string(image) }
        }
        // Swarm classic says where it happened.
        if let name = attributes["node.name"], let node = attributes["node.id"] {
            let address = attributes["node.ip"] ?? ""
            members["node"] = .object([
                "Name": .string(name), "Id": .string(node), "Addr": .string(address), "Ip": .string(address),
            ])
        }
        return JSONValue.object(members).serialized()
    }
}
