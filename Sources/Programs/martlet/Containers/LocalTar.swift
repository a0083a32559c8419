import Glibc
import Kernel

/// The machine's own tar at the other end of a pipe, for `cp`.
///
/// tar unpacks without following the archive's links out of the folder, and keeps modes and times.
final class LocalTar {
    private let child: ChildProcess
    /// Our end; given up so that tar sees the end of the archive.
    private var file: LocalFile?

    static func unpack(into folder: String, renaming: (from: String, to: String)?) throws -> LocalTar {
        let rename = renaming.map { ["--transform=\(expression($0.from, $0.to))"] } ?? []
        return try LocalTar(["tar", "-x", "-f", "-", "-C", folder, "--no-same-owner"] + rename, tarReads: true)
    }

    /// - Parameter name: the entry below `folder` to pack; `.` for all of it.
    static func pack(_ name: String, in folder: String, as newName: String?) throws -> LocalTar {
        let rename = newName.map { ["--transform=\(expression(name, $0))"] } ?? []
        return try LocalTar(["tar", "-c", "-f", "-", "-C", folder] + rename + ["--", name], tarReads: false)
    }

    /// A sed expression for tar that replaces the first component; `flags=rh` leaves symbolic links' targets alone.
    private static func expression(_ old: String, _ new: String) -> String {
        func quoted(_ text: String, _ special: String) -> String {
            text.map { special.contains($0) ? "\\\($0)" : "\($0)" }.joined()
        }
        return "flags=rh;s,^\(quoted(old, ".[]*^$\\,")),\(quoted(new, "&\\,")),"
    }

    private init(_ arguments: [String], tarReads: Bool) throws {
        var ends: [Int32] = [0, 0]
        try systemCall("pipe") { Glibc.pipe(&ends) }
        let ours = SharedFD(OwnedFD(adopting: ends[tarReads ? 1 : 0]))
        let theirs = OwnedFD(adopting: ends[tarReads ? 0 : 1])
        var spawn = Spawn("/bin/tar", arguments, environment: ["PATH=/usr/bin:/bin", "LC_ALL=C"])
        spawn.descriptors = tarReads ? [theirs.raw, 1, 2] : [-1, theirs.raw, 2]
        child = try spawn.start()
        file = LocalFile(ours, name: "tar")
    }

    /// Does the other part of the work with our end of the pipe, and waits for tar to do its own.
    ///
    /// - Throws: what `body` throws, tar being ended then before it can complain; when tar could not do its part, which
    ///   it has said on standard error.
    func run(_ body: (LocalFile) async throws -> Void) async throws {
        do {
            try await transfer(body)
        } catch {
            try child.signal(SIGKILL)
            _ = try child.wait()
            throw error
        }
        file = nil
        let status = try child.wait()
        guard status == .exited(0) else { throw CommandFailure("tar ended with \(status.shellCode)") }
    }

    /// Holds our end of the pipe no longer than it is used.
    private func transfer(_ body: (LocalFile) async throws -> Void) async throws {
        if let file { try await body(file) }
    }
}
