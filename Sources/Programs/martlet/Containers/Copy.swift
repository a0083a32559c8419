import ArgumentParser
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
            """)
    @OptionGroup var connection: ConnectionOptions
    @Argument(help: "CONTAINER:PATH, a local path, or - for a tar on standard input.") var source: String
    @Argument(help: "CONTAINER:PATH, a local path, or - for a tar on standard output.") var target: String

    func run() async throws {
        let cluster = connection.cluster
        switch (Self.split(source), Self.split(target)) {
        case (let from?, nil): try await copyOut(cluster, from)
        case (nil, let to?): try await copyIn(cluster, to)
        default:
            throw ValidationError("exactly one of '\(source)' and '\(target)' must be CONTAINER:PATH")
        }
    }

    /// A path that has a slash before its first colon is local.
    private static func split(_ text: String) -> (container: String, path: String)? {
        guard let colon = text.firstIndex(of: ":"), !text[..<colon].contains("/"), colon != text.startIndex else {
            return nil
        }
        let path = String(text[text.index(after: colon)...])
        return (String(text[..<colon]), path.hasPrefix("/") ? path : "/" + path)
    }

    private func archive(_ container: String) -> String { "\(APIPaths.containers)/\(escaped(container))/archive" }

    private func copyOut(_ cluster: ClusterAPI, _ from: (container: String, path: String)) async throws {
        if target == "-" {
            return try await cluster.download(
                archive(from.container), query: [("path", from.path)], to: LocalFile(writing: "-"), what: "copying")
        }
        let name = from.path.split(separator: "/").last.map(String.init) ?? "/"
        let place = LocalPlace(target, sourceName: name)
        let tar = try LocalTar.unpack(into: place.folder, renaming: place.newName.map { (name, $0) })
        if let file = tar.file {
            try await cluster.download(archive(from.container), query: [("path", from.path)], to: file, what: "copying")
        }
        try tar.finish()
    }

    private func copyIn(_ cluster: ClusterAPI, _ to: (container: String, path: String)) async throws {
        if source == "-" {
            return try await cluster.uploadWithoutAnswer(
                "PUT", archive(to.container), query: [("path", to.path)], from: LocalFile(reading: "-"), what: "copying"
            )
        }
        guard File.exists(source) else { throw CommandFailure("no such file or directory here: \(source)") }
        // `folder/.` means what is in it, as for cp(1).
        let contents = source.hasSuffix("/.") || source == "."
        let parts = source.split(separator: "/").filter { $0 != "." }
        let name = contents ? "." : parts.last.map(String.init) ?? "."
        let parent = (source.hasPrefix("/") ? "/" : "") + parts.dropLast(contents ? 0 : 1).joined(separator: "/")
        var folder = to.path
        var newName: String?
        if !contents, try await !isDirectory(cluster, to) {
            // The target is the new name, in a directory that must exist.
            guard !to.path.hasSuffix("/") else {
                throw CommandFailure("no such directory in \(to.container): \(to.path)")
            }
            newName = to.path.split(separator: "/").last.map(String.init)
            folder = "/" + to.path.split(separator: "/").dropLast().joined(separator: "/")
        }
        let tar = try LocalTar.pack(name, in: parent.isEmpty ? "." : parent, as: newName)
        if let file = tar.file {
            try await cluster.uploadWithoutAnswer(
                "PUT", archive(to.container), query: [("path", folder)], from: file, what: "copying")
        }
        try tar.finish()
    }

    private func isDirectory(_ cluster: ClusterAPI, _ to: (container: String, path: String)) async throws -> Bool {
        guard
            let header = try await cluster.head(
                archive(to.container), query: [("path", to.path)], header: "Martlet-Path-Stat")
        else { return false }
        return try JSONCoding.decode(PathStat.self, from: Array(unescaped(header).utf8)).mode & 0o170000 == 0o040000
    }
}

/// Where something that is copied out shall lie.
struct LocalPlace {
    let folder: String
    /// nil: it keeps its name.
    let newName: String?

    init(_ target: String, sourceName: String) {
        var info = stat()
        if stat(target, &info) == 0, info.st_mode & S_IFMT == S_IFDIR {
            folder = target
            newName = nil
        } else {
            let parts = target.split(separator: "/", omittingEmptySubsequences: false)
            let parent = parts.dropLast().joined(separator: "/")
            folder = parent.isEmpty ? (target.hasPrefix("/") ? "/" : ".") : parent
            newName = parts.last.map(String.init)
        }
    }
}

func unescaped(_ text: String) -> String {
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
