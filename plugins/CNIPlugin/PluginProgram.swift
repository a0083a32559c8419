import CNISpec
import Glibc
import JSON
import Kernel

/// What a plugin does. The verbs run on the program's only thread, which may enter another namespace and stay there.
package protocol Plugin {
    /// The program's name.
    static var name: String { get }
    static func add(_ call: PluginCall) throws(CNIError) -> CNIResult
    /// What is gone already is no error.
    static func delete(_ call: PluginCall) throws(CNIError)
    static func check(_ call: PluginCall) throws(CNIError)
    static func status(_ call: PluginCall) throws(CNIError)
    /// - Parameter valid: the attachments that are to stay.
    static func collectGarbage(_ call: PluginCall, valid: Set<PluginAttachment>) throws(CNIError)
}

/// A container's device.
package struct PluginAttachment: Sendable, Hashable {
    package let containerID: String
    package let interface: String

    package init(containerID: String, interface: String) {
        self.containerID = containerID
        self.interface = interface
    }
}

/// A CNI plugin as a program: one call, its answer on standard output (CNI specification 1.1, section 2).
package enum PluginProgram {
    /// - Parameter arguments: the program's, its own name first.
    /// - Returns: the exit status: 0, or 1 with an error on standard output.
    package static func run(_ plugin: any Plugin.Type, _ arguments: [String]) -> Int32 {
        if arguments.count > 1 {
            guard arguments.dropFirst() == ["--version"] else {
                return write(
                    Array(
                        "\(plugin.name): a CNI plugin: it takes its task from the environment (CNI_COMMAND …)\n".utf8),
                    to: 2, status: 2)
            }
            return write(Array("\(plugin.name) \(Version.number)\n".utf8), to: 1, status: 0)
        }
        var version = CNIVersion.v1_1_0
        do throws(CNIError) {
            let call = try PluginCall(
                environment: { getenv($0).map { String(cString: $0) } }, input: try standardInput())
            version = call.version
            guard let answer = try perform(call, plugin) else { return 0 }
            return write(answer.serialized(), to: 1, status: 0)
        } catch {
            return write(error.json(version: version).serialized(), to: 1, status: 1)
        }
    }

    private static func perform(_ call: PluginCall, _ plugin: any Plugin.Type) throws(CNIError) -> JSONValue? {
        switch call.verb {
        case .add:
            let result = try plugin.add(call)
            failpoint("plugin.before_result")
            return result.json(version: call.version)
        case .delete: try plugin.delete(call)
        case .check: try plugin.check(call)
        case .status: try plugin.status(call)
        case .collectGarbage: try plugin.collectGarbage(call, valid: valid(call))
        case .version:
            return VersionReply(supported: PluginCall.versions.map(\.rawValue)).json(version: call.version)
        }
        return nil
    }

    /// The attachments that the runtime knows of. Without the list there is none: nothing may be taken for granted then.
    private static func valid(_ call: PluginCall) throws(CNIError) -> Set<PluginAttachment> {
        let key = "cni.dev/valid-attachments"
        do throws(JSONError) {
            var valid: Set<PluginAttachment> = []
            for element in try call.configuration.array(key) {
                valid.insert(
                    PluginAttachment(
                        containerID: try element.string("containerID"), interface: try element.string("ifname")))
            }
            return valid
        } catch {
            throw CNIError(code: CNIError.invalidConfiguration, message: error.description)
        }
    }

    private static func standardInput() throws(CNIError) -> [UInt8] {
        do throws(KernelError) {
            return try Descriptor.readAll(0, limit: CNILimits.bytes, subject: "standard input")
        } catch {
            throw CNIError(
                code: error.errno == EFBIG ? CNIError.failedDecoding : CNIError.failedIO, message: error.description)
        }
    }

    /// A caller that does not read its answer is told by the status alone.
    private static func write(_ bytes: [UInt8], to descriptor: Int32, status: Int32) -> Int32 {
        do throws(KernelError) {
            try Descriptor.writeAll(descriptor, bytes)
            return status
        } catch {
            return 1
        }
    }
}
