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
    /// The plugin says that it may work later.
    package var isTransient: Bool { code == CNIError.tryAgainLater }
    /// What went wrong when a failed ADD was undone.
    package var cleanup: [String] = []

    package var description: String {
        let who = plugin.isEmpty ? "" : "plugin \(plugin): "
        let whose = container.isEmpty ? "" : " for \(container)"
        let after = cleanup.isEmpty ? "" : "; undoing it failed too: \(cleanup.joined(separator: "; "))"
        return "CNI \(verb.rawValue) in network \(network)\(whose): \(who)\(reason)\(after)"
    }
}

/// Runs the plugins of one network configuration list (CNI specification 1.1, sections 2 to 4).
///
/// All functions block until the plugins have ended. Calls about the same container and interface must not overlap;
/// others may.
package struct CNIHost: Sendable {
    package let list: NetworkConfigurationList
    package let pluginDirectories: [String]
    /// Longest run of one plugin.
    package let timeoutMilliseconds: Int
    let cache: CNICache
    let finder: PluginFinder
    let gate: NetworkGate

    /// Where the plugins themselves find programs such as iptables.
    package static let searchPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    /// Debian's directory, then that of the plugins' own project.
    package static let defaultPluginDirectories = ["/usr/lib/cni", "/opt/cni/bin"]

    /// - Parameters:
    ///   - pluginDirectories: the only places where plugins are looked for, in order; absolute paths.
    ///   - own: plugins by name that are elsewhere, with absolute paths.
    ///   - cacheDirectory: made when first needed.
    ///   - isDurable: records outlive a crash of the machine; for plugins that keep something on disk themselves.
    package init(
        list: NetworkConfigurationList, pluginDirectories: [String] = defaultPluginDirectories,
        own: [String: String] = [:], cacheDirectory: String, isDurable: Bool = false, timeoutMilliseconds: Int = 60_000
    ) {
        self.list = list
        self.pluginDirectories = pluginDirectories
        self.timeoutMilliseconds = timeoutMilliseconds
        cache = CNICache(directory: cacheDirectory, isDurable: isDurable)
        finder = PluginFinder(directories: pluginDirectories, own: own)
        gate = NetworkGate.of(list.name, in: cacheDirectory)
    }

    /// Wires a container: runs ADD of every plugin in order, each with the result of the one before.
    ///
    /// The attachment is on record before the first plugin runs and complete in it before this returns. What an earlier
    /// ADD of the same attachment left is deleted first. When a plugin fails, DEL of all plugins is run with the same
    /// arguments; if that fails too, the record stays for `delete` or the garbage collection.
    ///
    /// - Parameters:
    ///   - list: used instead of the host's own; of the same name.
    ///   - owner: what the record says whose it is.
    ///   - inspect: looks at the result of the last plugin; what it throws counts as a failure of ADD.
    package func add(
        _ attachment: NetworkAttachment, list: NetworkConfigurationList? = nil, owner: String = "",
        inspect: ((CNIResult) throws(CNIHostError) -> Void)? = nil
    ) throws(CNIHostError) -> CNIResult {
        try validate(attachment, .add)
        let list = try negotiated(list ?? self.list)
        return try gate.shared { () throws(CNIHostError) in
            try addInside(
                CNIRecord(list: list, attachment: attachment, result: nil, isComplete: false, owner: owner), inspect)
        }
    }

    private func addInside(
        _ new: CNIRecord, _ inspect: ((CNIResult) throws(CNIHostError) -> Void)?
    ) throws(CNIHostError) -> CNIResult {
        var record = new
        if let left = try load(record.attachment, .add) {
            try deleteInside(left)
        } else if cache.isDamaged(record) {
            try deleteInside(record)
        }
        try store(record)
        failpoint("cni.after_record")
        for (index, plugin) in record.list.plugins.enumerated() {
            do throws(CNIHostError) {
                let output = try run(plugin, .add, record, previous: record.result)
                record.result = try result(output, plugin, record)
                // So that DEL knows, after a crash too, what there is. The last one's is stored as complete below.
                if index + 1 < record.list.plugins.count { try store(record, isStep: true) }
            } catch {
                throw undo(record, after: error)
            }
            failpoint("cni.after_plugin")
        }
        guard let result = record.result else {
            throw failure(.add, "", record.attachment, "the list has no plugin")
        }
        record.isComplete = true
        do throws(CNIHostError) {
            try inspect?(result)
            try store(record)
        } catch {
            throw undo(record, after: error)
        }
        failpoint("cni.after_add")
        return result
    }

    private func undo(_ record: CNIRecord, after error: CNIHostError) -> CNIHostError {
        var error = error
        do throws(CNIHostError) {
            try deleteInside(record)
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
        try gate.shared { () throws(CNIHostError) -> Void in
            let record =
                try load(attachment, .delete)
                ?? CNIRecord(list: list, attachment: attachment, result: nil, isComplete: false)
            try deleteInside(record)
        }
    }

    /// The same for what is on record.
    ///
    /// - Parameter arguments: further ones (`CNI_ARGS`) beside those on record.
    package func delete(_ record: CNIRecord, arguments: [String: String] = [:]) throws(CNIHostError) {
        var record = record
        record.attachment.arguments.merge(arguments) { _, new in new }
        try gate.shared { () throws(CNIHostError) in try deleteInside(record) }
    }

    private func deleteInside(_ record: CNIRecord) throws(CNIHostError) {
        var failures: [CNIHostError] = []
        for plugin in record.list.plugins.reversed() {
            do throws(CNIHostError) {
                // The previous result reached DEL with version 0.4.0 of the specification.
                let previous = record.list.version.hasCheck ? record.result : nil
                _ = try run(plugin, .delete, record, previous: previous)
            } catch {
                // A container that the plugin does not know has nothing that it could take away.
                if error.code != CNIError.unknownContainer { failures.append(error) }
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

    /// What is on record for this network, complete or not.
    package func records() throws(KernelError) -> [CNIRecord] { try cache.all(network: list.name) }

    /// What is on record of one container for this network, complete or not.
    package func records(of containerID: String) throws(KernelError) -> [CNIRecord] {
        try cache.all(network: list.name, container: containerID)
    }

    /// The program of a plugin, or nil when there is none that may be run, see `PluginFinder`.
    package func program(of type: String) -> String? { try? finder.find(type).get() }
}

// MARK: - One plugin

extension CNIHost {
    private func run(
        _ plugin: PluginConfiguration, _ verb: CNIVerb, _ record: CNIRecord, previous: CNIResult?
    ) throws(CNIHostError) -> [UInt8] {
        let attachment = record.attachment
        let input = plugin.execution(
            version: record.list.version, network: record.list.name, arguments: attachment.capabilities,
            previous: previous)
        return try run(plugin.type, verb, attachment, input)
    }

    /// Runs one plugin's program with a configuration.
    ///
    /// - Parameter attachment: nil for verbs that are about the network.
    /// - Returns: what it printed; it ended with 0.
    func run(
        _ type: String, _ verb: CNIVerb, _ attachment: NetworkAttachment?, _ input: JSONValue
    ) throws(CNIHostError) -> [UInt8] {
        let path = try path(of: type, verb, attachment)
        var program = Program(
            path, environment: environment(verb, attachment), input: input.serialized(),
            timeoutMilliseconds: timeoutMilliseconds, outputLimit: CNILimits.bytes)
        program.endsGroup = true
        let answer: ProgramResult
        do throws(ProgramError) {
            answer = try program.run()
        } catch {
            throw failure(verb, type, attachment, error.description)
        }
        if answer.status == .exited(0) { return answer.output }
        throw refusal(answer, verb, type, attachment)
    }

    func path(of type: String, _ verb: CNIVerb, _ attachment: NetworkAttachment?) throws(CNIHostError) -> String {
        switch finder.find(type) {
        case .success(let path): return path
        case .failure(let missing): throw failure(verb, type, attachment, missing.reason)
        }
    }

    private func environment(_ verb: CNIVerb, _ attachment: NetworkAttachment?) -> [String] {
        var environment = [
            "PATH=\(Self.searchPath)", "CNI_COMMAND=\(verb.rawValue)",
            "CNI_PATH=\(pluginDirectories.joined(separator: ":"))",
        ]
        guard let attachment else { return environment }
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

    static func isNamespace(_ path: String) -> Bool {
        var info = statfs()
        return !path.isEmpty && statfs(path, &info) == 0 && Int(info.f_type) == Int(CK_NSFS_MAGIC)
    }

    private func refusal(
        _ answer: ProgramResult, _ verb: CNIVerb, _ type: String, _ attachment: NetworkAttachment?
    ) -> CNIHostError {
        if let reader = try? PluginAnswer.object(answer.output), let error = try? CNIError(reader) {
            var failure = failure(verb, type, attachment, error.sentence)
            failure.code = error.code
            return failure
        }
        let ending =
            switch answer.status {
            case .exited(let code): "it ended with code \(code)"
            case .signaled(let number): "it was killed by signal \(number)"
            }
        let words = CNIText.line(answer.errorText)
        return failure(verb, type, attachment, ending + (words.isEmpty ? "" : " and wrote: \(words)"))
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
        if let problem = attachment.problem { throw failure(verb, "", attachment, problem) }
        if verb != .delete, !Self.isNamespace(attachment.namespacePath) {
            throw failure(verb, "", attachment, "\(attachment.namespacePath) is no network namespace")
        }
    }

    private func load(_ attachment: NetworkAttachment, _ verb: CNIVerb) throws(CNIHostError) -> CNIRecord? {
        do throws(KernelError) {
            return try cache.load(
                network: list.name, container: attachment.containerID, interface: attachment.interface)
        } catch {
            throw failure(verb, "", attachment, error.description)
        }
    }

    private func store(_ record: CNIRecord, isStep: Bool = false) throws(CNIHostError) {
        do throws(KernelError) {
            try cache.store(record, isStep: isStep)
        } catch {
            throw failure(.add, "", record.attachment, error.description)
        }
    }

    func failure(
        _ verb: CNIVerb, _ plugin: String, _ attachment: NetworkAttachment?, _ reason: String
    ) -> CNIHostError {
        CNIHostError(
            verb: verb, plugin: plugin, network: list.name, container: attachment?.containerID ?? "", reason: reason)
    }
}
