/// Names that follow from others, so that what a crash left is found without any record.
extension PluginAttachment {
    /// The name of a device on the host that belongs to this attachment: the prefix and 13 hexadecimal digits of the
    /// 64-bit FNV-1a hash of network, id and device: what is done for one network never concerns a device of another,
    /// whatever is on record. A clash, one in 2^52, is refused by the kernel.
    ///
    /// - Parameter prefix: two letters, the plugin's own.
    package func deviceName(_ prefix: String, in network: String) -> String {
        var hash: UInt64 = 0xcbf2_9ce4_8422_2325
        for text in [network, containerID, interface] {
            for byte in Array(text.utf8) + [0] { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01b3 }
        }
        let digits = String(hash >> 12, radix: 16)
        return prefix + String(repeating: "0", count: 13 - digits.count) + digits
    }
}
