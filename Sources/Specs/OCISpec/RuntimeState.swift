import JSON

/// A container's state as `state` prints it and hooks read it.
package struct RuntimeState: OCIDocument {
    /// Where a container is in its life.
    package enum Status: String, Sendable, CaseIterable {
        case creating, created, running, stopped
        /// Frozen; not in the specification, but every runtime has it.
        case paused
    }

    package var ociVersion: String
    package var id: String
    package var status: Status
    /// The container's first process as the host numbers it; 0 when there is none.
    package var pid: Int32
    package var bundle: String
    package var annotations: [String: String]

    package init(
        ociVersion: String, id: String, status: Status, pid: Int32, bundle: String, annotations: [String: String] = [:]
    ) {
        self.ociVersion = ociVersion
        self.id = id
        self.status = status
        self.pid = pid
        self.bundle = bundle
        self.annotations = annotations
    }

    package init(_ reader: JSONReader) throws(JSONError) {
        ociVersion = try reader.string("ociVersion")
        id = try reader.string("id")
        status = try reader.choice("status")
        pid = try reader.optionalInt32("pid") ?? 0
        bundle = try reader.string("bundle")
        annotations = try reader.table("annotations")
    }

    package var json: JSONValue {
        var writer = ObjectWriter()
        writer.put("ociVersion", ociVersion)
        writer.put("id", id)
        writer.put("status", status.rawValue)
        writer.put("pid", pid)
        writer.put("bundle", bundle)
        writer.put("annotations", annotations)
        return writer.value
    }
}
