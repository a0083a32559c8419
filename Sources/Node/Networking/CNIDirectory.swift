import CNISpec
import Glibc
import JSON
import Kernel
import Reactor
import Synchronization

/// The network configuration lists of a directory, as they were when it was last looked at.
package struct CNILists: Sendable, Equatable {
    package struct Entry: Sendable, Equatable {
        package let list: NetworkConfigurationList
        /// The name of its file.
        package let file: String
    }

    /// By the name of the network.
    package fileprivate(set) var entries: [String: Entry] = [:]
    /// What is wrong with files there, one sentence each, with the file's name first.
    package fileprivate(set) var warnings: [String] = []

    /// Names of the networks, sorted.
    package var names: [String] { entries.keys.sorted() }
}

/// A directory of network configuration lists: files `*.conflist`, `*.conf` and `*.json`, in the order of their names'
/// bytes. Where two name the same network, the first is the one.
///
/// A file that is not valid, or not whole yet, is named in a warning, and what it said before goes on being used; only
/// when the file itself is gone is its network. From 1.1 on a list takes in the plugins of the files `*.conf` in the
/// directory beside it that is called as its network, unless it has `loadOnlyInlinedPlugins`; one of them that is
/// not valid counts like a mistake in the list itself.
///
/// Bounds: 256 files of 1 MiB each and 16 MiB together. Looking costs a few system calls for each file, and only those
/// that changed are read.
package final class CNIDirectory: Sendable {
    package let path: String
    private let state = Mutex(State())

    package static let fileLimit = 256
    package static let byteLimit = 16 << 20
    private static let endings = [".conflist", ".conf", ".json"]

    private struct State {
        var files: [String: Known] = [:]
        var lists = CNILists()
    }

    /// What is known of a file.
    private struct Known {
        var stamps: Stamps?
        /// The last that was valid.
        var list: NetworkConfigurationList?
        var problem: String?
        /// The directory of further plugins that it looked into.
        var folder: String?
    }

    private struct Stamps: Equatable {
        var list: FileStamp
        var plugins: [String: FileStamp]

        var isFresh: Bool { list.isFresh || plugins.values.contains(where: \.isFresh) }
    }

    /// - Parameter path: absolute; it need not be there.
    package init(_ path: String) { self.path = path }

    /// Looks at the directory again.
    ///
    /// Never fails: when the directory cannot be read, that is a warning, and what was known stays. One that is not
    /// there has no lists.
    @discardableResult
    package func refresh() -> CNILists {
        state.withLock { state in
            let files: [String]
            do throws(KernelError) {
                files = try File.list(path)
            } catch {
                if error.errno == ENOENT {
                    state = State()
                } else {
                    let warning = "the CNI lists in \(path) cannot be looked at, those of before are used: \(error)"
                    state.lists.warnings = [warning]
                }
                return state.lists
            }
            look(at: files, &state)
            return state.lists
        }
    }

    /// The list of a network.
    ///
    /// - Throws: `NetworkError` that names what there is instead, and what is wrong with the files.
    package func list(named name: String) throws(NetworkError) -> NetworkConfigurationList {
        let lists = refresh()
        if let entry = lists.entries[name] { return entry.list }
        let known = lists.names.isEmpty ? "none" : lists.names.prefix(16).joined(separator: ", ")
        let wrong = lists.warnings.isEmpty ? "" : "; \(lists.warnings.prefix(4).joined(separator: "; "))"
        throw NetworkError(
            .configuration,
            "no CNI list in \(path) is called \(JSONPathElement.quoted(name)), there are: \(known)\(wrong)")
    }

    private func look(at files: [String], _ state: inout State) {
        let names = files.filter { name in
            Self.endings.contains { name.hasSuffix($0) && name.utf8.count > $0.utf8.count }
        }
        .sorted { Array($0.utf8).lexicographicallyPrecedes(Array($1.utf8)) }
        let now = FileStamp.now
        var lists = CNILists()
        var known: [String: Known] = [:]
        var bytes = 0
        for name in names.prefix(Self.fileLimit) {
            let file = look(at: name, state.files[name], &bytes, now: now)
            // A file that went while we looked is none.
            guard let file else { continue }
            known[name] = file
            let shown = CNIText.line(name)
            if let problem = file.problem {
                let rest = file.list == nil ? "it is not used" : "what it said before is used"
                lists.warnings.append("the CNI list \(shown) is not valid, \(rest): \(problem)")
            }
            guard let list = file.list else { continue }
            if let first = lists.entries[list.name] {
                lists.warnings.append(
                    "the CNI list \(shown) is not used: \(CNIText.line(first.file)) comes before it and names the "
                        + "network \(list.name) too; remove one or give it another name")
            } else {
                lists.entries[list.name] = CNILists.Entry(list: list, file: name)
            }
        }
        if names.count > Self.fileLimit {
            lists.warnings.append(
                "the CNI list \(CNIText.line(names[Self.fileLimit])) and all behind it are not read: there are "
                    + "\(names.count) files, and \(Self.fileLimit) is the limit")
        }
        state.files = known
        state.lists = lists
    }

    private func look(at name: String, _ before: Known?, _ bytes: inout Int, now: Int) -> Known? {
        let path = "\(path)/\(name)"
        guard let stamp = FileStamp(path, now: now) else {
            // A link that leads nowhere is there.
            guard File.exists(path) else { return nil }
            return Known(list: before?.list, problem: "it is a symbolic link that leads nowhere")
        }
        var stamps = Stamps(list: stamp, plugins: before?.folder.map { plugins(of: $0, now: now) } ?? [:])
        bytes += ([stamp] + stamps.plugins.values).reduce(0) { $0 + min(max($1.size, 0), CNILimits.bytes) }
        if bytes > Self.byteLimit {
            return Known(
                list: before?.list,
                problem: "the files together are larger than the \(Self.byteLimit >> 20) MiB allowed")
        }
        if let before, before.stamps == stamps, !stamps.isFresh { return before }
        var new = Known(list: before?.list)
        do throws(Unusable) {
            let reader = try Self.read(path)
            let folder = try Unusable.of { () throws(JSONError) in
                try NetworkConfigurationList.PluginFiles(of: reader).directory
            }
            new.folder = folder
            var more: [PluginConfiguration] = []
            if let folder {
                stamps.plugins = plugins(of: folder, now: now)
                for file in stamps.plugins.keys.sorted() { more.append(try plugin("\(folder)/\(file)")) }
            }
            new.list = try Unusable.of { () throws(JSONError) in try NetworkConfigurationList(reader, more: more) }
        } catch {
            new.problem = error.reason
        }
        new.stamps = stamps
        return new
    }

    /// Files of further plugins of a list, at most one more than a list may have.
    private func plugins(of network: String, now: Int) -> [String: FileStamp] {
        guard let files = try? File.list("\(path)/\(network)") else { return [:] }
        var stamps: [String: FileStamp] = [:]
        for file in files.filter({ $0.hasSuffix(".conf") && $0 != ".conf" }).sorted().prefix(CNILimits.plugins + 1) {
            stamps[file] = FileStamp("\(path)/\(network)/\(file)", now: now)
        }
        return stamps
    }

    private func plugin(_ file: String) throws(Unusable) -> PluginConfiguration {
        do throws(Unusable) {
            let reader = try Self.read("\(path)/\(file)")
            return try Unusable.of { () throws(JSONError) in try PluginConfiguration(reader, isList: true) }
        } catch {
            throw Unusable("\(CNIText.line(file)): \(error.reason)")
        }
    }

    private static func read(_ path: String) throws(Unusable) -> JSONReader {
        let bytes: [UInt8]
        do throws(KernelError) {
            bytes = try File.readRegular(path, limit: CNILimits.bytes)
        } catch {
            throw Unusable(error.description)
        }
        return try Unusable.of { () throws(JSONError) in try PluginAnswer.object(bytes) }
    }

    /// Why a file is of no use.
    private struct Unusable: Error {
        let reason: String
        init(_ reason: String) { self.reason = reason }

        static func of<T>(_ body: () throws(JSONError) -> T) throws(Unusable) -> T {
            do throws(JSONError) {
                return try body()
            } catch {
                throw Unusable(CNIText.line(error.description))
            }
        }
    }
}
