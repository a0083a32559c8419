import CKernel
import CNISpec
import Glibc
import JSON
import Kernel

/// What a plugin did wrong, with its name, the verb and the network.
package struct CNIHostError: Error, Sendable, Equatable, CustomStringConvertible {
    package let verb: CNIVerb
    /// Empty when no plugin is at fault.
    package let plugin: String
    package let network: String
    package let container: String
    /// What it was: the plugin's own error, a time-out, garbage.
    package let reason: String
    /// The code of the plugin's own error; nil when it gave none.
    package var code: UInt32?
    /// What went wrong when a failed ADD was undone.
    package var cleanup: [String] = []

    package var description: String {
        let who = plugin.isEmpty ? "" : "plugin \(plugin): "
        let whose = container.isEmpty ? "" : " for \(container)"
        let after = cleanup.isEmpty ? "" : "; undoing it failed too: \(cleanup.joined(separator: "; "))"
        return "CNI \(verb.rawValue) in network \(network)\(whose): \(who)\(reason)\(after)"
    }
}

/// Runs the plugins of one network configuration list (CNI specification 1.0, sections 2 to 4).
///
/// All functions block until the plugins have ended. Calls about the same container and interface must not overlap;
/// others may.
package struct CNIHost: Sendable {
    package let list: NetworkConfigurationList
    package let pluginDirectories: [String]
    /// Longest run of one plugin.
    package let timeoutMilliseconds: Int
    let cache: CNICache
    /// Plugins that are not looked for in the directories, with their absolute paths.
    let own: [String: String]

    /// Where the plugins themselves find programs such as iptables.
    package static let searchPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    /// Debian's directory, then that of the plugins' own project.
    package static let defaultPluginDirectories = ["/usr/lib/cni", "/opt/cni/bin"]

    /// - Parameters:
    ///   - pluginDirectories: the only places where plugins are looked for, in order; absolute paths.
    ///   - own: plugins by name that are elsewhere, with absolute paths.
    ///   - cacheDirectory: made when first needed.
    package init(
        list: NetworkConfigurationList, pluginDirectories: [String] = defaultPluginDirectories,
        own: [String: String] = [:], cacheDirectory: String, timeoutMilliseconds: Int = 60_000
    ) {
        self.list = list
        self.own = own
        self.pluginDirectories = pluginDirectories
        self.timeoutMilliseconds = timeoutMilliseconds
        cache = CNICache(directory: cacheDirectory)
    }

    /// Wires a container: runs ADD of every plugin in order, each with the result of the one before.
    ///
    /// The attachment is on record before the first plugin runs and complete in it before this returns. What an earlier
    /// ADD of the same attachment left is deleted first. When a plugin fails, DEL of all plugins is run with the same
    /// arguments; if that fails too, the record stays for `delete` or the garbage collection.
    ///
    /// - Parameter list: used instead of the host's own; of the same name.
    package func add(_ attachment: NetworkAttachment, list: NetworkConfigurationList? = nil) throws(CNIHostError)
        -> CNIResult
    {
        let list = list ?? self.list
        try validate(attachment, .add)
        if let left = try load(attachment, .add) { try delete(left) }
        var record = CNIRecord(list: list, attachment: attachment, result: nil, isComplete: false)
        try store(record)
        failpoint("cni.after_record")
        for plugin in list.plugins {
            do throws(CNIHostError) {
                let output = try run(plugin, .add, record, previous: record.result)
                record.result = try result(output, plugin, record)
            } catch {
                throw undo(record, after: error)
            }
            failpoint("cni.after_plugin")
        }
        record.isComplete = true
        do throws(CNIHostError) {
            try store(record)
        } catch {
            throw undo(record, after: error)
        }
        failpoint("cni.after_add")
        guard let result = record.result else {
            throw failure(.add, "", record.attachment, "the list has no plugin")
        }
        return result
    }

    private func undo(_ record: CNIRecord, after error: CNIHostError) -> CNIHostError {
        var error = error
        do throws(CNIHostError) {
            try delete(record)
        } catch let second {
            error.cleanup = [second.reason]
        }
        return error
    }

    /// Unwires a container: runs DEL of every plugin in reverse order with the arguments of its ADD, the rest also when
    /// one fails. One that is not attached, or whose namespace is gone, is no error.
    ///
    /// - Throws: `CNIHostError` with all failures in its reason; the record stays then, so that it can be tried again.
    package func delete(_ attachment: NetworkAttachment) throws(CNIHostError) {
        try validate(attachment, .delete)
        let record =
            try load(attachment, .delete)
            ?? CNIRecord(list: list, attachment: attachment, result: nil, isComplete: false)
        try delete(record)
    }

    /// The same for what is on record.
    ///
    /// - Parameter arguments: further ones (`CNI_ARGS`) beside those on record.
    package func delete(_ record: CNIRecord, arguments: [String: String] = [:]) throws(CNIHostError) {
        var record = record
        record.attachment.arguments.merge(arguments) { _, new in new }
        var failures: [CNIHostError] = []
        for plugin in record.list.plugins.reversed() {
            do throws(CNIHostError) {
                // The previous result reached DEL with version 0.4.0 of the specification.
                let previous = record.list.version.hasCheck ? record.result : nil
                _ = try run(plugin, .delete, record, previous: previous)
            } catch {
                failures.append(error)
            }
        }
        if failures.count == 1 { throw failures[0] }
        guard failures.isEmpty else {
            let reason = failures.map { "plugin \($0.plugin): \($0.reason)" }.joined(separator: "; ")
            throw failure(.delete, "", record.attachment, reason)
        }
        do throws(KernelError) {
            try cache.remove(record)
        } catch {
            throw failure(.delete, "", record.attachment, error.description)
        }
    }

    /// Asks every plugin in order whether the attachment still is what ADD made it. Returns without asking when the
    /// list says that its plugins cannot tell.
    ///
    /// - Parameter capabilities: used instead of those on record, for plugins whose CHECK mistakes one.
    package func check(
        _ attachment: NetworkAttachment, capabilities: CapabilityArguments? = nil
    ) throws(CNIHostError) {
        guard var record = try load(attachment, .check), record.isComplete, let result = record.result else {
            throw failure(.check, "", attachment, "it is not attached")
        }
        try validate(record.attachment, .check)
        if let capabilities { record.attachment.capabilities = capabilities }
        if record.list.disableCheck { return }
        guard record.list.version.hasCheck else {
            throw failure(.check, "", attachment, "version \(record.list.version.rawValue) has no CHECK")
        }
        for plugin in record.list.plugins { _ = try run(plugin, .check, record, previous: result) }
    }

    /// Asks every plugin of the list for its versions.
    ///
    /// - Throws: `CNIHostError` when one is missing or does not speak the list's version.
    package func verifyPlugins() throws(CNIHostError) {
        let nobody = NetworkAttachment(containerID: "", namespacePath: "")
        for plugin in list.plugins {
            let record = CNIRecord(list: list, attachment: nobody, result: nil, isComplete: false)
            let output = try run(plugin, .version, record, previous: nil)
            let reply: VersionReply
            do throws(JSONError) {
                reply = try VersionReply(PluginAnswer.object(output))
            } catch {
                throw failure(.version, plugin.type, nobody, "its answer is not understood: \(error)")
            }
            guard reply.supports(list.version) else {
                let known = reply.supported.joined(separator: ", ")
                throw failure(
                    .version, plugin.type, nobody, "it does not speak \(list.version.rawValue), only \(known)")
            }
        }
    }

    /// What is on record for this network, complete or not.
    package func records() throws(KernelError) -> [CNIRecord] { try cache.all(network: list.name) }

    /// What is on record of one container for this network, complete or not.
    package func records(of containerID: String) throws(KernelError) -> [CNIRecord] {
        try cache.all(network: list.name, container: containerID)
    }

    /// The program of a plugin, or nil when no plugin directory has an executable file of that name.
    package func program(of type: String) -> String? {
        guard CNINames.isPluginType(type) else { return nil }
        let places = own[type].map { [$0] } ?? pluginDirectories.map { "\($0)/\(type)" }
        return places.first { path in
            var info = stat()
            return stat(path, &info) == 0 && info.st_mode & S_IFMT == S_IFREG && access(path, X_OK) == 0
        }
    }
}

// MARK: - One plugin

extension CNIHost {
    private func run(
        _ plugin: PluginConfiguration, _ verb: CNIVerb, _ record: CNIRecord, previous: CNIResult?
    ) throws(CNIHostError) -> [UInt8] {
        let attachment = record.attachment
        guard let path = program(of: plugin.type) else {
            let places = pluginDirectories.joined(separator: ", ")
            throw failure(
                verb, plugin.type, attachment,
                own[plugin.type].map { "there is no program \($0): build or install it with Martlet's others" }
                    ?? "the plugin is not installed in \(places); Debian has it in containernetworking-plugins")
        }
        let input =
            verb == .version
            ? JSONValue.object(["cniVersion": .string(record.list.version.rawValue)])
            : plugin.execution(
                version: record.list.version, network: record.list.name, arguments: attachment.capabilities,
                previous: previous)
        let program = Program(
            path, environment: environment(verb, attachment), input: input.serialized(),
            timeoutMilliseconds: timeoutMilliseconds, outputLimit: CNILimits.bytes)
        let answer: ProgramResult
        do throws(ProgramError) {
            answer = try program.run()
        } catch {
            throw failure(verb, plugin.type, attachment, error.description)
        }
        if answer.status == .exited(0) { return answer.output }
        throw refusal(answer, verb, plugin, attachment)
    }

    private func environment(_ verb: CNIVerb, _ attachment: NetworkAttachment) -> [String] {
        var environment = [
            "PATH=\(Self.searchPath)", "CNI_COMMAND=\(verb.rawValue)",
            "CNI_PATH=\(pluginDirectories.joined(separator: ":"))",
        ]
        if verb == .version { return environment }
        // A pin file that outlived its namespace is none: plugins stop there, and leave what they should remove.
        let gone = verb == .delete && !Self.isNamespace(attachment.namespacePath)
        environment += [
            "CNI_CONTAINERID=\(attachment.containerID)", "CNI_IFNAME=\(attachment.interface)",
            "CNI_NETNS=\(gone ? "" : attachment.namespacePath)",
        ]
        if !attachment.arguments.isEmpty {
            let pairs = attachment.arguments.sorted { $0.key < $1.key }.map { "\($0.key)=\($0.value)" }
            environment.append("CNI_ARGS=\(pairs.joined(separator: ";"))")
        }
        return environment
    }

    private static func isNamespace(_ path: String) -> Bool {
        var info = statfs()
        return !path.isEmpty && statfs(path, &info) == 0 && Int(info.f_type) == Int(CK_NSFS_MAGIC)
    }

    private func refusal(
        _ answer: ProgramResult, _ verb: CNIVerb, _ plugin: PluginConfiguration, _ attachment: NetworkAttachment
    ) -> CNIHostError {
        if let reader = try? PluginAnswer.object(answer.output), let error = try? CNIError(reader) {
            var failure = failure(verb, plugin.type, attachment, error.description)
            failure.code = error.code
            return failure
        }
        let ending =
            switch answer.status {
            case .exited(let code): "it ended with code \(code)"
            case .signaled(let number): "it was killed by signal \(number)"
            }
        let said = answer.errorText.isEmpty ? "" : " and wrote: \(answer.errorText)"
        return failure(verb, plugin.type, attachment, ending + said)
    }

    private func result(
        _ output: [UInt8], _ plugin: PluginConfiguration, _ record: CNIRecord
    ) throws(CNIHostError) -> CNIResult {
        do throws(JSONError) {
            return try CNIResult(PluginAnswer.object(output), version: record.list.version)
        } catch {
            throw failure(.add, plugin.type, record.attachment, "its result is not understood: \(error)")
        }
    }

    private func validate(_ attachment: NetworkAttachment, _ verb: CNIVerb) throws(CNIHostError) {
        let problem: String? =
            if !CNINames.isName(attachment.containerID) {
                "the container's id must be letters, digits, '_', '.' and '-', at most \(CNINames.longest)"
            } else if !CNINames.isInterface(attachment.interface) {
                "'\(attachment.interface)' is no name of a network device"
            } else if verb != .delete && !Self.isNamespace(attachment.namespacePath) {
                "\(attachment.namespacePath) is no network namespace"
            } else if let bad = attachment.arguments.first(where: {
                !CNINames.isArgumentKey($0.key) || !CNINames.isArgumentValue($0.value)
            }) {
                "the argument \(JSONPathElement.quoted(bad.key)) cannot be passed to plugins"
            } else {
                nil
            }
        if let problem { throw failure(verb, "", attachment, problem) }
    }

    private func load(_ attachment: NetworkAttachment, _ verb: CNIVerb) throws(CNIHostError) -> CNIRecord? {
        do throws(KernelError) {
            return try cache.load(
                network: list.name, container: attachment.containerID, interface: attachment.interface)
        } catch {
            throw failure(verb, "", attachment, error.description)
        }
    }

    private func store(_ record: CNIRecord) throws(CNIHostError) {
        do throws(KernelError) {
            try cache.store(record)
        } catch {
            throw failure(.add, "", record.attachment, error.description)
        }
    }

    private func failure(
        _ verb: CNIVerb, _ plugin: String, _ attachment: NetworkAttachment, _ reason: String
    ) -> CNIHostError {
        CNIHostError(
            verb: verb, plugin: plugin, network: list.name, container: attachment.containerID, reason: reason)
    }
}
