import Glibc
import Kernel

/// A user of a container, resolved to numbers.
package struct ContainerUser: Sendable, Equatable {
    package var uid: UInt32
    package var gid: UInt32
    /// All groups the process is in, the primary one first: a process that gives up its primary group must not get rid of
    /// the rights that the group denies.
    package var groups: [UInt32]
    /// The home directory; `/` for a user that the container does not know.
    package var home: String
    /// The user's name; nil for one that the container does not know.
    package var name: String?

    package init(uid: UInt32, gid: UInt32, groups: [UInt32], home: String, name: String? = nil) {
        self.uid = uid
        self.gid = gid
        self.groups = groups
        self.home = home
        self.name = name
    }
}

/// Resolves a USER string, `[user[:group]]`, each a name or a number, in a container's root file system.
///
/// What consists of digits is a number, never a name, whatever /etc/passwd holds; numbers are 0 to 2147483647 without
/// leading zeros, as Docker bounds them. Names begin with a letter or `_`. The empty string is user 0. /etc/passwd and
/// /etc/group are read inside the root, as regular files of at most 10 MiB; no code of the container's runs for it.
///
/// - Parameters:
///   - root: the mounted root file system on the host.
/// - Throws: `ImageError`: invalidArgument for a string that is none, notFound for a name that is not there,
///   invalidArchive for files that cannot be trusted.
package func resolveUser(_ user: String, root: String) throws -> ContainerUser {
    try ImageError.explaining("looking up the user '\(printable(user))'") {
        try UserDatabase(root: root).resolve(user)
    }
}

/// Numbers of groups, each given by name or number, as `resolveUser` reads them.
package func resolveGroups(_ groups: [String], root: String) throws -> [UInt32] {
    try groups.map { group in
        try ImageError.explaining("looking up the group '\(printable(group))'") {
            try UserDatabase(root: root).resolve(group: group)
        }
    }
}

/// The two files that users and groups are looked up in.
private struct UserDatabase {
    private struct Account {
        var name: String
        var uid: UInt32
        var gid: UInt32
        var home: String
    }

    private enum Identity {
        case number(UInt32)
        case name(String)
    }

    private let root: String
    private static let fileLimit = 10 << 20
    private static let maximumNumber: UInt32 = 0x7fff_ffff
    /// More groups than the kernel takes (NGROUPS_MAX).
    private static let maximumGroups = 65536

    init(root: String) { self.root = root }

    func resolve(_ text: String) throws -> ContainerUser {
        let parts = text.split(separator: ":", omittingEmptySubsequences: false).map(String.init)
        guard parts.count <= 2 else { throw Self.invalid(text, "it has more than one colon") }
        let group = parts.count == 2 ? try Self.identity(parts[1], in: text) : nil
        let identity = text.isEmpty ? Identity.number(0) : try Self.identity(parts[0], in: text)
        let account = try account(identity)
        var result: ContainerUser
        switch (identity, account) {
        case (_, let account?):
            result = ContainerUser(
                uid: account.uid, gid: account.gid, groups: [], home: account.home, name: account.name)
        case (.number(let number), nil):
            result = ContainerUser(uid: number, gid: 0, groups: [], home: "/")
        case (.name(let name), nil):
            throw ImageError(
                .notFound, "the container has no user '\(printable(name))' in its /etc/passwd; use a number instead")
        }
        switch group {
        case .number(let number)?: result.gid = number
        case .name(let name)?: result.gid = try groupNumber(name)
        case nil: result.groups = try account.map { try memberships(of: $0.name) } ?? []
        }
        let primary = result.gid
        result.groups = [primary] + result.groups.filter { $0 != primary }
        return result
    }

    func resolve(group text: String) throws -> UInt32 {
        switch try Self.identity(text, in: text) {
        case .number(let number): number
        case .name(let name): try groupNumber(name)
        }
    }

    private static func invalid(_ text: String, _ reason: String) -> ImageError {
        ImageError(.invalidArgument, "'\(printable(text))' is no user of a container: \(reason)")
    }

    private static func identity(_ part: String, in text: String) throws -> Identity {
        let bytes = Array(part.utf8)
        guard let first = bytes.first else { throw invalid(text, "user or group is missing") }
        if bytes.allSatisfy({ (0x30...0x39).contains($0) }) {
            guard let number = number(bytes[...]) else {
                throw invalid(text, "numbers are 0 to \(maximumNumber), without leading zeros")
            }
            return .number(number)
        }
        let isLetter = { (byte: UInt8) in
            (0x41...0x5a).contains(byte) || (0x61...0x7a).contains(byte) || byte == UInt8(ascii: "_")
        }
        let isFurther = { (byte: UInt8) in isLetter(byte) || (0x30...0x39).contains(byte) || ".-@$".utf8.contains(byte)
        }
        guard isLetter(first), bytes.count <= 256, bytes.allSatisfy(isFurther) else {
            throw invalid(text, "a name begins with a letter or _ and has only letters, digits and . _ - @ $")
        }
        return .name(part)
    }

    /// A canonical decimal number in range; nil for anything else.
    private static func number(_ digits: ArraySlice<UInt8>) -> UInt32? {
        guard (1...10).contains(digits.count), digits.count == 1 || digits.first != 0x30,
            digits.allSatisfy({ (0x30...0x39).contains($0) }),
            let number = UInt32(String(decoding: digits, as: UTF8.self)), number <= maximumNumber
        else { return nil }
        return number
    }

    /// Calls `body` with the fields of each line of a file that has at least `fields` of them, until it returns true. A
    /// file that is not there has no lines.
    private func forEachLine(of path: String, fields: Int, _ body: ([ArraySlice<UInt8>]) throws -> Bool) throws {
        let bytes: [UInt8]
        do throws(KernelError) {
            bytes = try Root(root).read(path, limit: Self.fileLimit)
        } catch {
            if error.errno == ENOENT || error.errno == ENOTDIR { return }
            throw ImageError(.invalidArchive, "the container's \(path) cannot be used: \(error)")
        }
        for line in bytes.split(separator: 0x0a) where line.first != UInt8(ascii: "#") {
            let parts = line.split(separator: UInt8(ascii: ":"), omittingEmptySubsequences: false)
            if parts.count >= fields, try body(parts) { return }
        }
    }

    /// The first account with a name or number; one with numbers that cannot be is an error, not user 0.
    private func account(_ identity: Identity) throws -> Account? {
        var found: Account?
        try forEachLine(of: "/etc/passwd", fields: 4) { fields in
            switch identity {
            case .number(let number): guard Self.number(fields[2]) == number else { return false }
            case .name(let name): guard fields[0].elementsEqual(name.utf8) else { return false }
            }
            guard let uid = Self.number(fields[2]), let gid = Self.number(fields[3]) else {
                throw ImageError(
                    .invalidArchive, "the container's /etc/passwd has no valid numbers for '\(printable(fields[0]))'")
            }
            let home = fields.count > 5 ? String(decoding: fields[5], as: UTF8.self) : ""
            let isUsable = home.isAbsolutePath && home.utf8.count <= 4095 && !home.utf8.contains(0)
            found = Account(
                name: String(decoding: fields[0], as: UTF8.self), uid: uid, gid: gid, home: isUsable ? home : "/")
            return true
        }
        return found
    }

    private func groupNumber(_ name: String) throws -> UInt32 {
        var found: UInt32?
        try forEachLine(of: "/etc/group", fields: 3) { fields in
            guard fields[0].elementsEqual(name.utf8) else { return false }
            found = Self.number(fields[2])
            guard found != nil else {
                throw ImageError(
                    .invalidArchive, "the container's /etc/group has no valid number for '\(printable(name))'")
            }
            return true
        }
        guard let found else {
            throw ImageError(
                .notFound, "the container has no group '\(printable(name))' in its /etc/group; use a number instead")
        }
        return found
    }

    /// The groups that list a user as their member.
    private func memberships(of user: String) throws -> [UInt32] {
        var result: [UInt32] = []
        var seen: Set<UInt32> = []
        try forEachLine(of: "/etc/group", fields: 4) { fields in
            guard fields[3].split(separator: UInt8(ascii: ",")).contains(where: { $0.elementsEqual(user.utf8) }),
                let number = Self.number(fields[2]), seen.insert(number).inserted
            else { return false }
            result.append(number)
            return result.count >= Self.maximumGroups
        }
        return result
    }
}
