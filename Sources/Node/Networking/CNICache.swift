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
}

/// What is remembered of an attachment, so that DEL and CHECK get what ADD got, whatever the configuration says then.
package struct CNIRecord: Sendable, Equatable {
    package var list: NetworkConfigurationList
    package var attachment: NetworkAttachment
    /// What the last plugin that ran returned.
    package var result: CNIResult?
    /// All plugins ran. A record that is not complete is of an ADD that a crash cut off.
    package var isComplete: Bool

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
        object["result"] = result?.json(version: list.version)
        return .object(object)
    }

    init(list: NetworkConfigurationList, attachment: NetworkAttachment, result: CNIResult?, isComplete: Bool) {
        self.list = list
        self.attachment = attachment
        self.result = result
        self.isComplete = isComplete
    }

    init(_ reader: JSONReader) throws(JSONError) {
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
    }
}

/// The records of attachments in a directory, one file each: `<network>-<container>-<interface>.json`.
///
/// They are replaced by rename, so that a crash of ours leaves the old or the new one, but not flushed to disk: a crash
/// of the machine takes the namespaces and rules with it that they describe. A file that cannot be read is set aside
/// as `….corrupt`.
struct CNICache: Sendable {
    let directory: String

    /// Room for two copies of the list and the result, which are bounded each.
    private static let limits = JSONLimits(bytes: 4 * CNILimits.bytes, depth: 40, stringBytes: 64 << 10)

    func path(network: String, container: String, interface: String) -> String {
        "\(directory)/\(network)-\(container)-\(interface).json"
    }

    func store(_ record: CNIRecord) throws(KernelError) {
        try File.makeDirectories(directory)
        let attachment = record.attachment
        let path = path(
            network: record.list.name, container: attachment.containerID, interface: attachment.interface)
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
            bytes = try File.read(path, limit: Self.limits.bytes)
        } catch {
            if error.errno == ENOENT { return nil }
            guard error.errno == EFBIG else { throw error }
            rename(path, path + ".corrupt")
            return nil
        }
        do throws(JSONError) {
            return try CNIRecord(JSONReader(JSONValue.parse(bytes, limits: Self.limits)))
        } catch {
            rename(path, path + ".corrupt")
            return nil
        }
    }

    /// All readable records of a network, or of one container there.
    func all(network: String, container: String? = nil) throws(KernelError) -> [CNIRecord] {
        let prefix = network + "-" + (container.map { $0 + "-" } ?? "")
        let names: [String]
        do throws(KernelError) {
            names = try File.list(directory)
        } catch {
            if error.errno == ENOENT { return [] }
            throw error
        }
        var records: [CNIRecord] = []
        for name in names.sorted() where name.hasSuffix(".json") && name.hasPrefix(prefix) {
            guard let record = try load("\(directory)/\(name)"), record.list.name == network,
                container == nil || record.attachment.containerID == container
            else { continue }
            records.append(record)
        }
        return records
    }

    func remove(_ record: CNIRecord) throws(KernelError) {
        try File.removeFile(
            path(
                network: record.list.name, container: record.attachment.containerID,
                interface: record.attachment.interface))
    }
}
