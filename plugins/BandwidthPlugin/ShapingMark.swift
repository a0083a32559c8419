import CNIPlugin
import CNISpec

/// What the alias of a device of ours says: whose it is and which device it is put before, so that GC knows without any
/// record what is whose. At most 248 bytes; the kernel takes 255.
struct ShapingMark: Equatable {
    let network: String
    let attachment: PluginAttachment
    /// The name of the container's device on the host.
    let hostEnd: String

    private static let tag = "martlet-bandwidth"

    init(network: String, attachment: PluginAttachment, hostEnd: String) {
        self.network = network
        self.attachment = attachment
        self.hostEnd = hostEnd
    }

    /// Nil when it is not ours.
    init?(_ alias: String) {
        let words = alias.split(separator: " ", omittingEmptySubsequences: false).map { String($0) }
        guard words.count == 5, words[0] == Self.tag, CNINames.isName(words[1]), CNINames.isName(words[2]),
            CNINames.isInterface(words[3]), CNINames.isInterface(words[4])
        else { return nil }
        network = words[1]
        attachment = PluginAttachment(containerID: words[2], interface: words[3])
        hostEnd = words[4]
    }

    var alias: String {
        "\(Self.tag) \(network) \(attachment.containerID) \(attachment.interface) \(hostEnd)"
    }
}
