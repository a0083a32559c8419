import Kernel

/// A tmpfs of a container, as `--tmpfs` describes it: `destination[:option,…]`.
package struct TmpfsMount: Sendable, Equatable, Codable {
    /// Absolute path in the container.
    package var destination: String
    /// In bytes; nil for the kernel's default of half the memory.
    package var size: UInt64?
    /// Permission bits of its root, with sticky.
    package var mode: UInt32 = 0o1777
    package var uid: UInt32?
    package var gid: UInt32?
    package var readOnly = false
    package var executable = false
    package var setuid = false
    package var devices = false

    package init(destination: String) { self.destination = destination }

    /// Reads a specification. Options: `size=N[k|m|g]` (bytes, or binary multiples), `mode=` (octal), `uid=`, `gid=`,
    /// `ro`, `rw`, `exec`, `noexec`, `suid`, `nosuid`, `dev`, `nodev`; each at most once. As in Docker, noexec, nosuid and
    /// nodev hold unless the opposite is given.
    ///
    /// - Throws: `VolumeError`: invalidArgument, unsupported for another option.
    package init(parsing text: String) throws {
        let parts = text.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
        guard let destination = parts.first, destination.isAbsolutePath, destination.utf8.count <= 4095,
            !text.utf8.contains(0), !destination.pathComponents.contains(".."),
            destination.contains(where: { $0 != "/" })
        else {
            throw VolumeError(
                .invalidArgument,
                "the tmpfs '\(Self.shown(text))' needs an absolute path other than / and without .. as its destination")
        }
        self.init(destination: destination)
        guard parts.count == 2 else { return }
        var seen: Set<Substring> = []
        for option in parts[1].split(separator: ",", omittingEmptySubsequences: false) {
            let pair = option.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            let key = pair.first ?? ""
            guard seen.insert(Self.subject(of: key)).inserted else {
                throw VolumeError(
                    .invalidArgument, "the tmpfs '\(Self.shown(text))' sets '\(Self.subject(of: key))' twice")
            }
            try apply(String(key), value: pair.count == 2 ? String(pair[1]) : nil, in: text)
        }
    }

    private mutating func apply(_ key: String, value: String?, in text: String) throws {
        let invalid = VolumeError(
            .invalidArgument, "the tmpfs '\(Self.shown(text))' has a malformed option '\(Self.shown(key))'")
        let flags: [String: (WritableKeyPath<TmpfsMount, Bool>, Bool)] = [
            "ro": (\.readOnly, true), "rw": (\.readOnly, false), "exec": (\.executable, true),
            "noexec": (\.executable, false), "suid": (\.setuid, true), "nosuid": (\.setuid, false),
            "dev": (\.devices, true), "nodev": (\.devices, false),
        ]
        if let (path, setting) = flags[key] {
            guard value == nil else { throw invalid }
            self[keyPath: path] = setting
            return
        }
        switch key {
        case "size":
            guard let size = Self.bytes(value ?? "") else { throw invalid }
            self.size = size
        case "mode":
            guard let value, (1...5).contains(value.utf8.count), let mode = UInt32(value, radix: 8), mode <= 0o7777,
                value.utf8.allSatisfy({ (0x30...0x37).contains($0) })
            else { throw invalid }
            self.mode = mode
        case "uid", "gid":
            guard let value, value.utf8.allSatisfy({ (0x30...0x39).contains($0) }), let number = UInt32(value),
                number < UInt32.max
            else { throw invalid }
            if key == "uid" { uid = number } else { gid = number }
        default:
            throw VolumeError(
                .unsupported,
                "the tmpfs option '\(Self.shown(key))' is not supported; size, mode, uid, gid, ro, exec, suid and dev are"
            )
        }
    }

    /// The options of the mount, as the OCI runtime specification lists them.
    package var options: [String] {
        var result = [
            readOnly ? "ro" : "rw", setuid ? "suid" : "nosuid", devices ? "dev" : "nodev",
            executable ? "exec" : "noexec", "mode=\(String(mode, radix: 8))",
        ]
        if let size { result.append("size=\(size)") }
        if let uid { result.append("uid=\(uid)") }
        if let gid { result.append("gid=\(gid)") }
        return result
    }

    /// What an option is about: `exec` and `noexec` are one.
    private static func subject(of key: Substring) -> Substring {
        if key == "rw" { return "ro" }
        return ["noexec", "nosuid", "nodev"].contains(key) ? key.dropFirst(2) : key
    }

    /// A positive number with an optional binary suffix; nil for anything else.
    private static func bytes(_ text: String) -> UInt64? {
        let shifts: [Character: UInt64] = ["k": 10, "m": 20, "g": 30]
        var digits = text[...]
        var shift: UInt64 = 0
        if let last = text.lowercased().last, let found = shifts[last] {
            shift = found
            digits = digits.dropLast()
        }
        guard !digits.isEmpty, digits.utf8.allSatisfy({ (0x30...0x39).contains($0) }), let number = UInt64(digits),
            number > 0
        else { return nil }
        let (product, overflow) = number.multipliedReportingOverflow(by: 1 << shift)
        // tmpfs counts in pages and signed words.
        return overflow || product > UInt64(Int64.max) ? nil : product
    }

    private static func shown(_ text: String) -> String { ByteName.text(text.utf8) }
}
