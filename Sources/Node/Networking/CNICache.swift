import CNISpec
import Glibc
import JSON
import Kernel

/// One container's place in a network, as a runtime hands it to the plugins.
package struct NetworkAttachment: Sendable, Equatable {
    package var containerID: String
    /// The path of its network namespace. At DEL it may be gone.
    package var namespacePath: String
    /// The device's name inside.
    package var interface: String
    package var capabilities: CapabilityArguments
    /// Further arguments (`CNI_ARGS`).
    package var arguments: [String: String]

    package init(
        containerID: String, namespacePath: String, interface: String = "eth0",
        capabilities: CapabilityArguments = CapabilityArguments(), arguments: [String: String] = [:]
    ) {
        self.containerID = containerID
        self.namespacePath = namespacePath
        self.interface = interface
        self.capabilities = capabilities
        self.arguments = arguments
    }

    /// Why plugins cannot be called with it; nil when they can.
    var problem: String? {
        if !CNINames.isName(containerID) {
            return "the container's id must be letters, digits, '_', '.' and '-', at most \(CNINames.longest)"
        }
        if !CNINames.isInterface(interface) {
            return "\(JSONPathElement.quoted(interface)) is no name of a network device"
        }
        if namespacePath.utf8.count >= Int(PATH_MAX) || namespacePath.utf8.contains(where: { $0 < 32 || $0 == 127 }) {
            return "\(JSONPathElement.quoted(namespacePath)) is no path of a network namespace"
        }
        let bad = arguments.keys.sorted().first { key in
            !CNINames.isArgumentKey(key) || !CNINames.isArgumentValue(arguments[key] ?? "")
        }
        return bad.map { "the argument \(JSONPathElement.quoted($0)) cannot be passed to plugins" }
    }
}

/// What is remembered of an attachment, so that DEL and CHECK get what ADD got, whatever the configuration says then.
package struct CNIRecord: Sendable, Equatable {
    package var list: NetworkConfigurationList
    package var attachment: NetworkAttachment
    /// What the last plugin that ran returned.
    package var result: CNIResult?
    /// All plugins ran. A record that is not complete is of an ADD that a crash cut off.
    package var isComplete: Bool
    /// Which of the node's networks it is of, where several may use one list.
    package var owner = ""

    private static let kind = "martlet-cni-1"

    var json: JSONValue {
        var object: JSONObject = [
            "kind": .string(Self.kind), "container": .string(attachment.containerID),
            "namespace": .string(attachment.namespacePath), "interface": .string(attachment.interface),
            "complete": .bool(isComplete), "list": list.json, "capabilities": .object(attachment.capabilities.json),
        ]
        var arguments = JSONObject()
        for (key, value) in attachment.arguments.sorted(by: { $0.key < $1.key }) { arguments[key] = .string(value) }
        object["arguments"] = .object(arguments)
        // In the version that has all fields, whatever the list's is.
        if let result { object["result"] = result.json(version: .v1_1_0) }
        if !owner.isEmpty { object["owner"] = .string(owner) }
        return .object(object)
    }

    package init(
        list: NetworkConfigurationList, attachment: NetworkAttachment, result: CNIResult? = nil,
        isComplete: Bool = false, owner: String = ""
    ) {
        self.list = list
        self.attachment = attachment
        self.result = result
        self.isComplete = isComplete
        self.owner = owner
    }

    /// Reads a record. Names are checked: they become parts of paths and of plugins' environments.
    package init(_ reader: JSONReader) throws(JSONError) {
        let kind = try reader.string("kind")
        guard kind == Self.kind else { throw reader.error(.type, "kind", "is not \(Self.kind)") }
        list = try NetworkConfigurationList(reader.object("list"))
        attachment = NetworkAttachment(
            containerID: try reader.string("container"), namespacePath: try reader.string("namespace"),
            interface: try reader.string("interface"),
            capabilities: try CapabilityArguments(reader.object("capabilities")),
            arguments: try reader.stringMap("arguments"))
        isComplete = try reader.bool("complete")
        result = try reader.optionalObject("result").map { member throws(JSONError) in
            try CNIResult(member, version: nil)
        }
        owner = try reader.optionalString("owner") ?? ""
        if let problem = attachment.problem { throw reader.error(.type, problem) }
    }
}

/// The records of attachments in a directory, one file each: `<network>-<container>-<interface>.json`.
///
/// They are replaced by rename, so that a crash of ours leaves the old or the new one. They are flushed to disk where it
/// is asked for: a crash of the machine takes the namespaces and rules with it that they describe, but not the leases
/// that plugins keep on disk. A file that is no record is set aside as `….corrupt`, until the attachment of that
/// name is deleted.
struct CNICache: Sendable {
    let directory: String
    /// What is complete is on disk when it is stored.
    var isDurable = false

    /// Room for two copies of the list and the result, which are bounded each.
    static let limits = JSONLimits(bytes: 4 * CNILimits.bytes, depth: 40, stringBytes: 64 << 10)
    private static let corrupt = ".corrupt"

    func path(network: String, container: String, interface: String) -> String {
        "\(directory)/\(network)-\(container)-\(interface).json"
    }

    private func path(_ record: CNIRecord) -> String {
        path(
            network: record.list.name, container: record.attachment.containerID, interface: record.attachment.interface)
    }

    /// - Parameter isStep: another state of the same attachment follows at once, so that disk need not be waited for.
    func store(_ record: CNIRecord, isStep: Bool = false) throws(KernelError) {
        try File.makeDirectories(directory)
        let path = path(record)
        if isDurable, !isStep { return try File.replace(path, with: record.json.serialized()) }
        let temporary = path + ".new"
        do throws(KernelError) {
            let file = try File.open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW)
            try file.writeAll(record.json.serialized(), subject: temporary)
        } catch {
            unlink(temporary)
            throw error
        }
        try systemCall("rename", path) { rename(temporary, path) }
    }

    /// Nil when there is none, or none that can be read.
    func load(network: String, container: String, interface: String) throws(KernelError) -> CNIRecord? {
        try load(path(network: network, container: container, interface: interface))
    }

    private func load(_ path: String) throws(KernelError) -> CNIRecord? {
        let bytes: [UInt8]
        do throws(KernelError) {
            bytes = try File.readRegular(path, limit: Self.limits.bytes)
        } catch {
            if error.errno == ENOENT { return nil }
            // Not what we wrote: too large, a directory, a FIFO, a link in circles.
            guard [EFBIG, EISDIR, EINVAL, ELOOP, ENXIO].contains(error.errno) else { throw error }
            return setAside(path)
        }
        guard let record = Self.parse(bytes), self.path(record) == path else { return setAside(path) }
        return record
    }

    /// What is in a file; nil when that is no record.
    static func parse(_ bytes: [UInt8]) -> CNIRecord? {
        do throws(JSONError) {
            return try CNIRecord(JSONReader(JSONValue.parse(bytes, limits: limits)))
        } catch {
            return nil
        }
    }

    private func setAside(_ path: String) -> CNIRecord? {
        // Where it cannot be renamed (a directory is in the way) it is found again, and set aside then.
        rename(path, path + Self.corrupt)
        return nil
    }

    /// What could be read of a network, or of one container there.
    struct Contents: Sendable {
        var records: [CNIRecord] = []
        /// Attachments whose records are damaged, as far as the names of the files tell.
        var damaged: [ValidAttachment] = []
        /// Why files could not be read that may be records; the others are there all the same.
        var problems: [KernelError] = []
    }

    /// - Throws: `KernelError` when the directory itself cannot be read.
    func contents(network: String, container: String? = nil) throws(KernelError) -> Contents {
        let prefix = network + "-" + (container.map { $0 + "-" } ?? "")
        var contents = Contents()
        let files = try names().filter { $0.hasPrefix(prefix) }.sorted()
        var hasDamaged = files.contains { $0.hasSuffix(Self.corrupt) }
        for name in files where name.hasSuffix(".json") {
            do throws(KernelError) {
                guard let record = try load("\(directory)/\(name)") else {
                    hasDamaged = true
                    continue
                }
                // A file of another network whose name begins with this one's and a hyphen is among them.
                guard record.list.name == network, container == nil || record.attachment.containerID == container
                else { continue }
                contents.records.append(record)
            } catch {
                contents.problems.append(error)
            }
        }
        guard hasDamaged else { return contents }
        for name in try names().sorted() where name.hasSuffix(".json" + Self.corrupt) && name.hasPrefix(prefix) {
            let rest = name.dropFirst(network.count + 1).dropLast(".json".count + Self.corrupt.count)
            // Devices seldom have a hyphen in their name, containers may.
            guard let hyphen = rest.lastIndex(of: "-") else { continue }
            let attachment = ValidAttachment(
                containerID: String(rest[..<hyphen]), interface: String(rest[rest.index(after: hyphen)...]))
            guard CNINames.isName(attachment.containerID), CNINames.isInterface(attachment.interface),
                container == nil || attachment.containerID == container
            else { continue }
            contents.damaged.append(attachment)
        }
        return contents
    }

    private func names() throws(KernelError) -> [String] {
        do throws(KernelError) {
            return try File.list(directory)
        } catch {
            if error.errno == ENOENT { return [] }
            throw error
        }
    }

    /// All readable records of a network, or of one container there.
    ///
    /// - Throws: `KernelError` when there may be more than could be read.
    func all(network: String, container: String? = nil) throws(KernelError) -> [CNIRecord] {
        let contents = try contents(network: network, container: container)
        if let problem = contents.problems.first { throw problem }
        return contents.records
    }

    /// Whether the record of an attachment was set aside.
    func isDamaged(_ record: CNIRecord) -> Bool { File.exists(path(record) + Self.corrupt) }

    /// Removes the record, and what was set aside under its name.
    func remove(_ record: CNIRecord) throws(KernelError) {
        let path = path(record)
        try File.removeFile(path)
        do throws(KernelError) {
            try File.removeFile(path + Self.corrupt)
        } catch {
            guard error.errno == EISDIR || error.errno == EPERM else { throw error }
            try Tree.remove(path + Self.corrupt)
        }
        if isDurable { try File.syncDirectory(of: path) }
    }
}
