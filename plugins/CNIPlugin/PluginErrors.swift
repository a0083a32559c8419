import CNISpec
import JSON
import Kernel

/// The codes of our plugins' own errors; those up to 99 are the specification's.
extension CNIError {
    /// The network has no free address.
    package static let noAddress: UInt32 = 100
    /// Somebody else has the address that was asked for.
    package static let addressTaken: UInt32 = 101
    /// The kernel refused; the message has its words.
    package static let refusedByKernel: UInt32 = 102
    /// CHECK: something of the attachment is not there any more.
    package static let notAttached: UInt32 = 103
    /// Somebody else has published the port.
    package static let portTaken: UInt32 = 104

    /// What the kernel refused, with a code that says what was tried.
    package init(_ error: KernelError, code: UInt32 = CNIError.failedIO) {
        self.init(code: code, message: error.description)
    }

    /// Runs `body`, whose errors get a code.
    package static func from<Result: ~Copyable>(
        _ code: UInt32 = CNIError.failedIO, _ body: () throws(KernelError) -> Result
    ) throws(CNIError) -> Result {
        do throws(KernelError) {
            return try body()
        } catch {
            throw CNIError(error, code: code)
        }
    }
}

extension PluginCall {
    /// Members of the configuration that belong to the specification and mean nothing to a plugin, or are read by the
    /// frame.
    package static let commonMembers: Set<String> = [
        "cniVersion", "cniVersions", "name", "type", "capabilities", "prevResult", "dns", "args", "disableCheck",
        "disableGC", "loadOnlyInlinedPlugins", "cni.dev/valid-attachments", "cni.dev/attachments",
    ]
    /// `CNI_ARGS` at DEL: the network namespace goes away right afterwards, and all devices in it.
    package static let endArgument = "MARTLET_END"

    /// Refuses members of the configuration that are not known, with name and value as the specification wants it
    /// (code 2).
    package func rejectUnknown(_ reader: JSONReader, known: Set<String>) throws(CNIError) {
        guard case .object(let object) = reader.value else { return }
        for member in object.members where !known.contains(member.key) {
            let value = String(decoding: member.value.serialized().prefix(100), as: UTF8.self)
            let place = JSONPathElement.text(reader.path + [.key(member.key)])
            throw CNIError(
                code: CNIError.unsupportedField, message: "\(place), which is \(value), is not supported here")
        }
    }
}
