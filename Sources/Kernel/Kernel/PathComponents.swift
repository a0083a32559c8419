/// Paths as the kernel reads them: slashes are bytes.
///
/// To Swift, a slash before U+0301 is a part of another character, where a search for `/` finds nothing, and `..` before it
/// would go unseen.
///
/// Inlinable, so that callers have them for their own kind of string: the generic ones look up conformances at run time.
extension StringProtocol {
    /// What stands between the slashes.
    @inlinable package var pathComponents: [Substring] {
        Substring(self).utf8.split(separator: UInt8(ascii: "/")).map { Substring($0) }
    }

    /// Whether it begins with a slash.
    @inlinable package var isAbsolutePath: Bool { utf8.first == UInt8(ascii: "/") }

    /// The last slash; `utf8.index(after:)` is behind it.
    @inlinable package var lastSlash: Index? { Substring(self).utf8.lastIndex(of: UInt8(ascii: "/")) }

    /// Whether it leads to something in `directory`, as far as its words go: links and `..` are not looked at.
    @inlinable package func isPath(inside directory: some StringProtocol) -> Bool {
        utf8.starts(with: "\(directory)/".utf8)
    }
}
