import CNIPlugin

/// Names that follow from others, so that what a crash left is found without any record.
enum OverlayNames {
    /// The end of a container's device that hangs off the bridge: `mv` and 13 hexadecimal digits of the 64-bit FNV-1a
    /// hash of id and device. A clash, one in 2^52, is refused by the kernel.
    static func hostEnd(of attachment: PluginAttachment) -> String {
        var hash: UInt64 = 0xcbf2_9ce4_8422_2325
        for byte in Array(attachment.containerID.utf8) + [0] + Array(attachment.interface.utf8) {
            hash = (hash ^ UInt64(byte)) &* 0x100_0000_01b3
        }
        let digits = String(hash >> 12, radix: 16)
        return "mv" + String(repeating: "0", count: 13 - digits.count) + digits
    }
}
