import JSON

/// `linux.intelRdt`: a class of service of the resctrl filesystem.
package struct IntelRdtSpec: OCIDocument {
    /// The class's name; `/` is the default class, nil one of the container's own.
    package var closID: String?
    /// A line of the file `schemata` for the L3 cache.
    package var l3CacheSchema: String?
    /// The same for memory bandwidth, beginning with `MB:`.
    package var memBwSchema: String?
    /// Further lines.
    package var schemata: [String]
    package var enableMonitoring: Bool

    package init(closID: String? = nil, schemata: [String] = []) {
        self.closID = closID
        self.schemata = schemata
        enableMonitoring = false
    }

    package init(_ reader: JSONReader) throws(JSONError) {
        closID = try reader.optionalString("closID")
        l3CacheSchema = try reader.optionalString("l3CacheSchema")
        memBwSchema = try reader.optionalString("memBwSchema")
        schemata = try reader.list("schemata")
        enableMonitoring = try reader.optionalBool("enableMonitoring") ?? false
    }

    package var json: JSONValue {
        var writer = ObjectWriter()
        writer.put("closID", closID)
        writer.put("l3CacheSchema", l3CacheSchema)
        writer.put("memBwSchema", memBwSchema)
        writer.put("schemata", schemata)
        if enableMonitoring { writer.put("enableMonitoring", true) }
        return writer.value
    }
}

/// A network link that moves into the container, in `linux.netDevices` under its name on the host.
package struct NetDeviceSpec: OCIDocument {
    /// Its name in the container; nil for the same. One that ends in `%d` gets a number.
    package var name: String?

    package init(name: String? = nil) { self.name = name }

    package init(_ reader: JSONReader) throws(JSONError) { name = try reader.optionalString("name") }

    package var json: JSONValue {
        var writer = ObjectWriter()
        writer.put("name", name)
        return writer.value
    }
}

/// Limits for one device, in `linux.resources.rdma` under its name.
package struct RDMASpec: OCIDocument {
    package var hcaHandles: UInt32?
    package var hcaObjects: UInt32?

    package init(hcaHandles: UInt32? = nil, hcaObjects: UInt32? = nil) {
        self.hcaHandles = hcaHandles
        self.hcaObjects = hcaObjects
    }

    package init(_ reader: JSONReader) throws(JSONError) {
        hcaHandles = try reader.optionalUInt32("hcaHandles")
        hcaObjects = try reader.optionalUInt32("hcaObjects")
    }

    package var json: JSONValue {
        var writer = ObjectWriter()
        writer.put("hcaHandles", hcaHandles)
        writer.put("hcaObjects", hcaObjects)
        return writer.value
    }
}
