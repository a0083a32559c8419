/// How much of what comes from outside is accepted. Every bound is checked while data flows, before it is stored.
package struct ImageLimits: Sendable, Equatable {
    /// Bytes of one archive given to import or load, as it comes (compressed or not).
    package var archiveBytes: UInt64 = 128 << 30
    /// Bytes of one layer's tar, uncompressed; also the largest single file, holes included.
    package var layerBytes: UInt64 = 64 << 30
    /// Entries of one layer's tar.
    package var layerEntries = 4_000_000
    /// Uncompressed bytes for one compressed byte, once more than `compressionFloor` bytes have come out.
    package var compressionRatio: UInt64 = 200
    /// Below this many uncompressed bytes the ratio is not looked at: small layers of zeros are harmless.
    package var compressionFloor: UInt64 = 1 << 30
    /// Bytes of one path in an archive; the kernel's own bound is 4,095.
    package var pathBytes = 4095
    /// Bytes of one name in a path; the kernel's own bound is 255.
    package var nameBytes = 255
    /// Directories within each other.
    package var depth = 512
    /// Bytes of one extended header (pax or GNU long name).
    package var headerBytes = 1 << 20
    /// Extended attributes of one entry, and bytes of one value; the kernel's own bound for a value is 64 KiB.
    package var attributes = 64
    package var attributeBytes = 64 << 10
    /// Data segments of one sparse file.
    package var sparseSegments = 262_144
    /// Members of an archive given to load.
    package var members = 20_000
    /// Images of an archive given to load.
    package var images = 1000
    /// Layers of one image; overlayfs takes 500.
    package var layers = 127
    /// Bytes of a manifest, an index or a configuration.
    package var documentBytes = 4 << 20

    package init() {}

    /// The values given beside each bound.
    package static let standard = ImageLimits()
}

/// How far an import, load or save has come.
package struct ImageProgress: Sendable, Equatable {
    /// What is being done: `reading`, `unpacking <digest>`, `writing`.
    package let phase: String
    /// Bytes done so far in this phase.
    package let done: UInt64
    /// Bytes to do, where that is known.
    package let total: UInt64?
}

/// Called on the calling thread, at most once for a mebibyte.
package typealias ImageProgressHandler = (ImageProgress) -> Void
