import CNIPlugin

/// Names that follow from others, so that what a crash left is found without any record.
enum OverlayNames {
    /// The end of a container's device on the host: `mv` and 13 hexadecimal digits of the 64-bit FNV-1a
    /// hash of network, id and device.
    static func hostEnd(of attachment: PluginAttachment, in network: String) -> String {
        attachment.deviceName("mv", in: network)
    }
}
