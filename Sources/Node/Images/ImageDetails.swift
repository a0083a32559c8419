import JSON

/// Everything that is known about an image.
package struct ImageDetails: Sendable, Equatable {
    /// A step of the image's making, the first one first.
    package struct Step: Sendable, Equatable {
        package var created: Timestamp?
        /// The command, as the builder wrote it.
        package var createdBy: String
        package var comment: String
        /// The layer it made; nil for a step that changed no file.
        package var layer: ImageRecord.Layer?
    }

    package var record: ImageRecord
    package var config: ImageConfig
    package var author: String
    package var history: [Step]
}

extension ImageStore {
    /// Reads an image's configuration.
    ///
    /// - Throws: `ImageError`: notFound, ambiguous, corrupted, invalidArchive.
    package func inspect(_ reference: String) throws -> ImageDetails {
        let record = try resolve(reference)
        return try ImageError.explaining("reading an image") {
            let document = try config(of: record)
            var layers = record.layers[...]
            let history = document.history.map { step in
                ImageDetails.Step(
                    created: step.created.flatMap { Timestamp(rfc3339: $0) }, createdBy: step.createdBy ?? "",
                    comment: step.comment ?? "", layer: step.emptyLayer == true ? nil : layers.popFirst())
            }
            return ImageDetails(
                record: record, config: document.config, author: document.author ?? "", history: history)
        }
    }

    /// An image's configuration document, its digest checked.
    func config(of record: ImageRecord) throws -> ImageConfigDocument {
        try ImageConfigDocument(
            blobs.read(record.configDigest, limit: limits.documentBytes), layers: record.layers.count,
            name: "configuration \(record.configDigest)", limits: limits)
    }
}
