import CNISpec
import JSON

/// The plugins by which this node's networks are made.
enum OwnPlugin {
    static let overlay = "martlet-overlay"
    static let portmap = "portmap"

    /// Has martlet-overlay publish ports as well: one program less to start. Earlier versions attached by portmap, which detaches
    /// what they attached.
    static func addPorts(to overlay: inout JSONObject) {
        overlay["snat"] = true
        guard case .object(var capabilities)? = overlay["capabilities"] else { return }
        capabilities["portMappings"] = true
        overlay["capabilities"] = .object(capabilities)
    }

    /// Whether ports were published by Debian's portmap, whose rules are iptables'.
    static func publishedByOther(_ record: CNIRecord) -> Bool {
        record.list.plugins.contains { $0.type == portmap && $0.fields["backend"] == nil }
    }
}
