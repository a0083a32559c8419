import CNISpec
import JSON
import Kernel

// What plugins are asked about a network as a whole.

extension CNIHost {
    /// The list in one version: the highest that it names, that is known here, and that all of its plugins speak. They
    /// are asked only where there is a choice.
    ///
    /// - Throws: `CNIHostError` of VERSION when there is none, with the first plugin that left nothing.
    package func negotiated(
        _ list: NetworkConfigurationList
    ) throws(CNIHostError) -> NetworkConfigurationList {
        guard list.versions.count > 1 else { return list }
        var common = Set(list.versions)
        for plugin in list.plugins {
            let spoken = try versions(of: plugin.type, list.version)
            let left = common.filter { spoken.contains($0.rawValue) }
            guard !left.isEmpty else {
                let wanted = common.sorted().map(\.rawValue).joined(separator: ", ")
                throw failure(
                    .version, plugin.type, nil,
                    "it speaks none of the versions \(wanted), only \(spoken.joined(separator: ", "))")
            }
            common = left
        }
        return list.at(common.max() ?? list.version)
    }

    /// - Parameter version: the one that the question is asked in.
    private func versions(of type: String, _ version: CNIVersion) throws(CNIHostError) -> [String] {
        let path = try path(of: type, .version, nil)
        return try PluginVersions.of(path) { () throws(CNIHostError) -> [String] in
            let output = try run(type, .version, nil, ["cniVersion": .string(version.rawValue)])
            do throws(JSONError) {
                return try VersionReply(PluginAnswer.object(output)).supported
            } catch {
                throw failure(.version, type, nil, "its answer is not understood: \(error)")
            }
        }
    }

    /// Asks every plugin of the list for its versions.
    ///
    /// - Throws: `CNIHostError` when one is missing or does not speak the list's version.
    package func verifyPlugins() throws(CNIHostError) {
        let list = try negotiated(list)
        for plugin in list.plugins {
            let spoken = try versions(of: plugin.type, list.version)
            guard spoken.contains(list.version.rawValue) else {
                throw failure(
                    .version, plugin.type, nil,
                    "it does not speak \(list.version.rawValue), only \(spoken.joined(separator: ", "))")
            }
        }
    }

    /// Whether ADD can be served: the plugins are there, speak the list's version and, from 1.1 on, say so themselves
    /// (STATUS).
    ///
    /// - Returns: what is in the way; nothing when the network is ready.
    package func status() -> [CNIHostError] {
        let list: NetworkConfigurationList
        do throws(CNIHostError) {
            try verifyPlugins()
            list = try negotiated(self.list)
        } catch {
            return [error]
        }
        guard list.version >= CNIVerb.status.since else { return [] }
        var problems: [CNIHostError] = []
        for plugin in list.plugins {
            do throws(CNIHostError) {
                _ = try run(
                    plugin.type, .status, nil, plugin.execution(version: list.version, network: list.name))
            } catch {
                problems.append(error)
            }
        }
        return problems
    }

    /// Tells every plugin which attachments of the network there are, so that it removes what is of others (GC, from 1.1
    /// on). No ADD or DEL of the network runs meanwhile. Nothing happens for a list of an older version, or one that
    /// has `disableGC`.
    ///
    /// What is on record is valid, complete or not, and so is what a damaged record was of: it may be in use.
    ///
    /// - Returns: what failed; the plugins behind it were called all the same.
    package func collectGarbage() -> [CNIHostError] {
        if list.disableGC { return [] }
        do throws(CNIHostError) {
            let list = try negotiated(list)
            guard list.version >= CNIVerb.collectGarbage.since else { return [] }
            return try gate.alone { () throws(CNIHostError) -> [CNIHostError] in
                let valid = try validAttachments()
                var problems: [CNIHostError] = []
                for plugin in list.plugins {
                    do throws(CNIHostError) {
                        let input = plugin.execution(version: list.version, network: list.name, valid: valid)
                        _ = try run(plugin.type, .collectGarbage, nil, input)
                    } catch {
                        problems.append(error)
                    }
                }
                return problems
            }
        } catch {
            return [error]
        }
    }

    private func validAttachments() throws(CNIHostError) -> [ValidAttachment] {
        do throws(KernelError) {
            let contents = try cache.contents(network: list.name)
            if let problem = contents.problems.first { throw problem }
            return contents.damaged
                + contents.records.map {
                    ValidAttachment(containerID: $0.attachment.containerID, interface: $0.attachment.interface)
                }
        } catch {
            throw failure(.collectGarbage, "", nil, error.description)
        }
    }
}
