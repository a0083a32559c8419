import ArgumentParser
import CKernel
import Glibc
import JSON
import Kernel
import Model
import Wire

struct Copy: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "cp", abstract: "Copy files between a container and this machine.",
        discussion: """
            Examples:
              martlet cp web.1:/www/index.html .
              martlet cp config/ web.1:/etc/
              martlet cp web.1:/var/log - | tar tv
            FOLDER/. means what is in the folder.
            """)
    @OptionGroup var connection: ConnectionOptions
    @Flag(name: [.customShort("L"), .long], help: "Copy what a symbolic link leads to, instead of the link.")
    var followLink = false
    @Argument(help: "CONTAINER:PATH, a local path, or - for a tar on standard input.") var source: String
    @Argument(help: "CONTAINER:PATH, a local path, or - for a tar on standard output.") var target: String

    func run() async throws {
        let cluster = connection.cluster
        switch (ContainerPath.split(source), ContainerPath.split(target)) {
        case (let from?, nil): try await copyOut(ContainerPath(cluster, from))
        case (nil, let to?): try await copyIn(ContainerPath(cluster, to))
        case (.some, .some):
            throw ValidationError("between two containers nothing is copied: copy out of the one, then into the other")
        case (nil, nil):
            throw ValidationError("neither '\(source)' nor '\(target)' is in a container: write one as CONTAINER:PATH")
        }
    }

    private func copyOut(_ given: ContainerPath) async throws {
        var from = given
        let kind = try await from.mustExist(following: followLink)
        if target == "-" { return try await from.download(to: LocalFile(writing: "-")) }
        let isFolder = kind == .directory
        let isContent = from.isContent
        // The archive's entries begin with this.
        let entry = isContent ? "." : from.name
        var folder = target
        var newName: String?
        if !LocalPath.isFolder(target) {
            let place = LocalPath(target)
            guard LocalPath.isFolder(place.parent) else {
                throw CommandFailure("there is no folder '\(place.parent)' here to copy \(source) into")
            }
            guard !File.exists(place.path) || !isFolder else {
                throw CommandFailure("\(source) is a folder, and '\(target)' here is not: choose another name")
            }
            guard isFolder || !target.hasSuffix("/") else {
                throw CommandFailure("there is no folder '\(target)' here to copy \(source) into")
            }
            (folder, newName) = (place.parent, place.name)
        } else if !isContent, given.name != entry {
            // A link that was followed gives its own name.
            newName = given.name
        }
        let tar = try LocalTar.unpack(into: folder, renaming: newName.map { (entry, $0) })
        try await tar.run { try await from.download(to: $0) }
    }

    private func copyIn(_ given: ContainerPath) async throws {
        var to = given
        if source == "-" {
            guard try await to.isDirectory() else {
                throw CommandFailure("\(target) is no directory: an archive is unpacked in one that exists")
            }
            return try await to.upload(from: LocalFile(reading: "-"))
        }
        guard LocalPath.isThere(source) else { throw CommandFailure("there is no '\(source)' here") }
        let isFolder = LocalPath.isFolder(source, following: followLink || source.hasSuffix("/"))
        let isContent = isFolder && (source == "." || source.hasSuffix("/."))
        var place = LocalPath(source)
        var newName: String?
        if followLink || source.hasSuffix("/"), !isContent, let real = realpath(source, nil) {
            defer { free(real) }
            newName = place.name
            place = LocalPath(String(cString: real))
        }
        if try await !to.isDirectory() {
            switch try await to.kind(following: true) {
            case nil:
                // The target is the new name, in a directory that must exist.
                guard isFolder || !to.path.hasSuffix("/") else {
                    throw CommandFailure("there is no directory \(target) to copy '\(source)' into")
                }
            case .some:
                guard !isFolder else {
                    throw CommandFailure("'\(source)' is a folder, and \(target) is not: choose another name")
                }
                guard !target.hasSuffix("/") else { throw CommandFailure("\(target) is no directory") }
            }
            newName = to.name
            to.path = to.parent
            guard try await to.isDirectory() else {
                throw CommandFailure("there is no directory \(to) to copy '\(source)' into")
            }
        }
        let tar =
            isContent || place.name == ".."
            ? try LocalTar.pack(".", in: source, as: newName)
            : try LocalTar.pack(place.name, in: place.parent, as: newName)
        try await tar.run { try await to.upload(from: $0) }
    }
}

/// A place in a container.
struct ContainerPath: CustomStringConvertible {
    enum Kind { case directory, link, other }

    let cluster: ClusterAPI
    let container: String
    var path: String

    init(_ cluster: ClusterAPI, _ place: (container: String, path: String)) {
        self.cluster = cluster
        container = place.container
        path = place.path
    }

    /// A path that has a slash before its first colon is local.
    static func split(_ text: String) -> (container: String, path: String)? {
        guard let colon = text.firstIndex(of: ":"), !text[..<colon].contains("/"), colon != text.startIndex else {
            return nil
        }
        let path = String(text[text.index(after: colon)...])
        return (String(text[..<colon]), path.hasPrefix("/") ? path : "/" + path)
    }

    var description: String { "\(container):\(path)" }
    /// `..` of the root is the root, as in a container.
    private var parts: [Substring] {
        path.pathComponents.reduce(into: []) { parts, part in
            if part == ".." { _ = parts.popLast() } else if part != "." { parts.append(part) }
        }
    }
    var name: String { parts.last.map(String.init) ?? "." }
    var parent: String { "/" + parts.dropLast().joined(separator: "/") }
    /// What is in the directory, not the directory itself.
    var isContent: Bool { parts.isEmpty || path.hasSuffix("/.") }

    private var archive: String { "\(APIPaths.containers)/\(escaped(container))/archive" }

    func download(to file: LocalFile) async throws {
        try await cluster.download(archive, query: [("path", path)], to: { file }, what: "copying")
    }

    func upload(from file: LocalFile) async throws {
        // A file never takes a directory's place, nor a directory a file's.
        try await cluster.uploadWithoutAnswer(
            "PUT", archive, query: [("path", path), ("overwriteDirectory", "false")], from: file, what: "copying")
    }

    /// Whether the path leads to a directory, over links too.
    func isDirectory() async throws -> Bool { try await stat(path + "/.") != nil }

    /// What the path is; nil when there is nothing.
    ///
    /// - Parameter following: when it is a symbolic link, `path` becomes that which it leads to.
    mutating func kind(following: Bool) async throws -> Kind? {
        for _ in 0..<40 {
            guard let stat = try await stat(path) else { return nil }
            switch stat.mode & 0o170000 {
            case 0o040000: return .directory
            case 0o120000 where following:
                let target = stat.linkTarget
                path = target.hasPrefix("/") ? target : parent + "/" + target
            case 0o120000: return .link
            default: return .other
            }
        }
        throw CommandFailure("\(self) leads through a loop of links")
    }

    mutating func mustExist(following: Bool) async throws -> Kind {
        if let kind = try await kind(following: following) { return kind }
        throw CommandFailure("there is no \(self)")
    }

    private func stat(_ path: String) async throws -> PathStat? {
        guard let header = try await cluster.head(archive, query: [("path", path)], header: PathStat.header) else {
            // No container, or no such path in it.
            let _: ContainerView = try await cluster.get("\(APIPaths.containers)/\(escaped(container))")
            return nil
        }
        return try JSONCoding.decode(PathStat.self, from: Array(unescaped(header).utf8))
    }
}

/// A place on this machine.
struct LocalPath {
    let path: String
    let parent: String
    let name: String

    init(_ text: String) {
        let parts = text.pathComponents.filter { $0 != "." }
        name = parts.last.map(String.init) ?? "."
        let folder = parts.dropLast().joined(separator: "/")
        parent = text.hasPrefix("/") ? "/" + folder : folder.isEmpty ? "." : folder
        path = parent + "/" + name
    }

    static func isFolder(_ path: String, following: Bool = true) -> Bool {
        (try? File.open(path, O_DIRECTORY | Int32(CK_O_PATH) | (following ? 0 : O_NOFOLLOW))) != nil
    }

    /// Also a link that leads nowhere.
    static func isThere(_ path: String) -> Bool { (try? File.open(path, Int32(CK_O_PATH) | O_NOFOLLOW)) != nil }
}

private func unescaped(_ text: String) -> String {
    var bytes: [UInt8] = []
    var rest = Array(text.utf8)[...]
    while let byte = rest.popFirst() {
        if byte == UInt8(ascii: "%"), rest.count >= 2,
            let value = UInt8(String(decoding: rest.prefix(2), as: UTF8.self), radix: 16)
        {
            bytes.append(value)
            rest = rest.dropFirst(2)
        } else {
            bytes.append(byte)
        }
    }
    return String(decoding: bytes, as: UTF8.self)
}
