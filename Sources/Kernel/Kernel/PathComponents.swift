extension StringProtocol {
    /// What stands between the slashes of a path, as the kernel reads it: slashes are bytes.
    ///
    /// To Swift, a slash before U+0301 is a part of another character, where a search for `/` finds nothing, and `..`
    /// before it would go unseen.
    package var pathComponents: [Substring] {
        Substring(self).utf8.split(separator: UInt8(ascii: "/")).map { Substring($0) }
    }
}
