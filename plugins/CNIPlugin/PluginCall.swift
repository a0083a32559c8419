import CNISpec
import Glibc
import JSON
import Kernel

/// What a plugin is asked to do: the environment's words and the configuration, checked as far as they are the same for
/// all plugins.
package struct PluginCall: Sendable {
    package let verb: CNIVerb
    /// Empty for verbs that are about no container.
    package let containerID: String
    /// The device's name inside.
    package let interface: String
    /// The path of the container's network namespace; at DEL it may be empty or lead nowhere.
    package let namespacePath: String
    /// `CNI_ARGS`.
    package let arguments: [String: String]
    package let version: CNIVersion
    /// The network's name.
    package let network: String
    /// All of the configuration.
    package let configuration: JSONReader

    /// The versions that our plugins answer in.
    package static let versions: [CNIVersion] = [.v0_3_1, .v0_4_0, .v1_0_0, .v1_1_0]

    /// - Parameters:
    ///   - environment: a variable's value, nil when there is none.
    ///   - input: the configuration.
    package init(
        environment: (String) -> String?, input: [UInt8]
    ) throws(CNIError) {
        let word = environment("CNI_COMMAND") ?? ""
        guard let verb = CNIVerb(rawValue: word) else {
            let known = CNIVerb.allCases.map(\.rawValue).joined(separator: ", ")
            throw CNIError(
                code: CNIError.invalidEnvironment,
                message: "CNI_COMMAND is \(JSONPathElement.quoted(word)), not one of \(known)")
        }
        self.verb = verb
        do throws(JSONError) {
            configuration = JSONReader(try JSONValue.parse(input, limits: CNILimits.json))
            _ = try configuration.members()
        } catch {
            throw CNIError(
                code: CNIError.failedDecoding, message: "the network configuration on standard input is not JSON",
                details: error.description)
        }
        version = try Self.version(configuration, verb)
        if verb == .version {
            (containerID, interface, namespacePath, network, arguments) = ("", "", "", "", [:])
            return
        }
        do throws(JSONError) {
            network = try configuration.string("name")
        } catch {
            throw CNIError(code: CNIError.invalidConfiguration, message: error.description)
        }
        guard CNINames.isName(network) else {
            throw CNIError(
                code: CNIError.invalidConfiguration,
                message: "$.name: \(JSONPathElement.quoted(network)) is no network's name")
        }
        guard verb.hasAttachment else {
            (containerID, interface, namespacePath, arguments) = ("", "", "", [:])
            return
        }
        containerID = try Self.variable("CNI_CONTAINERID", environment, CNINames.isName)
        interface = try Self.variable("CNI_IFNAME", environment, CNINames.isInterface)
        let path = environment("CNI_NETNS") ?? ""
        guard verb == .delete || path.utf8.first == UInt8(ascii: "/") else {
            throw CNIError(
                code: CNIError.invalidEnvironment,
                message: "CNI_NETNS is \(JSONPathElement.quoted(path)), which is no absolute path")
        }
        namespacePath = path
        arguments = try Self.arguments(environment("CNI_ARGS") ?? "")
    }

    private static func version(_ reader: JSONReader, _ verb: CNIVerb) throws(CNIError) -> CNIVersion {
        let text: String
        do throws(JSONError) {
            text = try reader.string("cniVersion")
        } catch {
            throw CNIError(code: CNIError.incompatibleVersion, message: error.description)
        }
        guard let version = versions.first(where: { $0.rawValue == text }) else {
            let known = versions.map(\.rawValue).joined(separator: ", ")
            throw CNIError(
                code: CNIError.incompatibleVersion,
                message: "the configuration is of version \(JSONPathElement.quoted(text)); known are \(known)")
        }
        guard version >= verb.since else {
            throw CNIError(
                code: CNIError.incompatibleVersion,
                message: "\(verb.rawValue) came with version \(verb.since.rawValue), not \(version.rawValue)")
        }
        return version
    }

    private static func variable(
        _ name: String, _ environment: (String) -> String?, _ isValid: (String) -> Bool
    ) throws(CNIError) -> String {
        let value = environment(name) ?? ""
        guard isValid(value) else {
            throw CNIError(
                code: CNIError.invalidEnvironment,
                message: "\(name) is \(JSONPathElement.quoted(value)), which cannot be")
        }
        return value
    }

    /// `key=value;…` (CNI specification, `CNI_ARGS`).
    private static func arguments(_ text: String) throws(CNIError) -> [String: String] {
        var arguments: [String: String] = [:]
        for pair in text.split(separator: ";") {
            let halves = pair.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            guard halves.count == 2, CNINames.isArgumentKey(String(halves[0])) else {
                throw CNIError(
                    code: CNIError.invalidEnvironment,
                    message: "CNI_ARGS has \(JSONPathElement.quoted(String(pair))), which is no key=value")
            }
            arguments[String(halves[0])] = String(halves[1])
        }
        return arguments
    }

    /// Refuses arguments that are not known, unless the caller says that they may be ignored (`IgnoreUnknown`).
    package func rejectUnknownArguments(known: Set<String>) throws(CNIError) {
        if ["1", "true", "yes"].contains(arguments["IgnoreUnknown"]?.lowercased() ?? "") { return }
        for key in arguments.keys.sorted() where !known.contains(key) && key != "IgnoreUnknown" {
            throw CNIError(
                code: CNIError.invalidEnvironment,
                message: "CNI_ARGS has \(JSONPathElement.quoted(key)), which is not known here")
        }
    }
}
