import CNISpec
import JSON

/// The plugins by which this node's networks are made.
enum OwnPlugin {
    static let overlay = "martlet-overlay"
    static let portmap = "portmap"

    /// Portmap as networks of ours have it. The backend says that it is not Debian's, by which earlier versions attached.
    static func portmapConfiguration() throws(JSONError) -> PluginConfiguration {
        let portmap: JSONObject = [
            "type": .string(portmap), "backend": "nftables", "snat": true, "capabilities": ["portMappings": true],
        ]
        return try PluginConfiguration(JSONReader(.object(portmap)))
    }

    /// Whether ports were published by Debian's portmap, whose rules are iptables'.
    static func publishedByOther(_ record: CNIRecord) -> Bool {
        record.list.plugins.contains { $0.type == portmap && $0.fields["backend"] == nil }
    }
}
