import Glibc
import Kernel
import Synchronization

/// A blob of the store, opened for reading from its beginning; its content is not checked.
package struct StoredContent: Sendable {
    package let file: SharedFD
    /// In bytes.
    package let size: UInt64
}

/// What is known of a blob without reading it.
package struct ContentItem: Codable, Sendable, Equatable {
    package var digest: Digest
    /// In bytes.
    package var size: UInt64
}

extension ImageStore {
    /// Opens a blob for another node. Only what an image of the catalog consists of is given out; once it is open, it can
    /// be read to its end even if the image is removed meanwhile.
    ///
    /// - Throws: `ImageError`: notFound, system.
    package func openContent(_ digest: Digest) throws -> StoredContent {
        try ImageError.explaining("opening the content \(digest)") {
            try state.withLock { state in
                guard state.catalog.images.values.contains(where: { $0.blobs.contains(digest) }) else {
                    throw ImageError(.notFound, "no image of this node has the content \(digest)")
                }
                let file = SharedFD(try blobs.open(digest))
                var info = stat()
                try systemCall("fstat", blobs.path(digest)) { fstat(file.raw, &info) }
                return StoredContent(file: file, size: UInt64(info.st_size))
            }
        }
    }

    /// All blobs of an image: its manifest, its configuration, and its layers, the lowest first.
    ///
    /// - Parameter manifest: of the platform's manifest.
    /// - Throws: `ImageError`: notFound, system.
    package func content(of manifest: Digest) throws -> [ContentItem] {
        try ImageError.explaining("listing the content of \(manifest)") {
            guard let image = state.withLock({ $0.catalog.images[manifest] }) else {
                throw ImageError(.notFound, "there is no image \(manifest) on this node")
            }
            var seen: Set<Digest> = []
            return try image.blobs.filter { seen.insert($0).inserted }.map { digest in
                var info = stat()
                try systemCall("stat", blobs.path(digest)) { lstat(blobs.path(digest), &info) }
                return ContentItem(digest: digest, size: UInt64(info.st_size))
            }
        }
    }
}
