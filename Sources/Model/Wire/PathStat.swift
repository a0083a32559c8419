import JSON

/// A file of a container, as `HEAD …/archive?path=` tells it (percent-encoded JSON in `Martlet-Path-Stat`).
package struct PathStat: Sendable, Codable, Hashable {
    /// The header's name.
    package static let header = "Martlet-Path-Stat"

    /// The last component of the path.
    package var name: String
    /// Bytes.
    package var size: Int64
    /// st_mode of stat(2): type and permission bits.
    package var mode: UInt32
    package var modifiedAt: Timestamp
    /// Where a symbolic link points; empty for others.
    package var linkTarget: String

    package init(name: String, size: Int64, mode: UInt32, modifiedAt: Timestamp, linkTarget: String = "") {
        self.name = name
        self.size = size
        self.mode = mode
        self.modifiedAt = modifiedAt
        self.linkTarget = linkTarget
    }
}
