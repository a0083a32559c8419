import CSeccomp
import Glibc
import Kernel

/// Compiled filters, kept by what they were compiled from: a node runs many containers with the same few profiles, and
/// libseccomp takes milliseconds for each.
///
/// A file holds its whole source before the program, so that a name that collides, a file of another version or one
/// that was cut off is compiled anew and never loaded. Whoever can write to the folder can choose the filters: it has
/// to belong to the runtime alone.
package struct SeccompCache: Sendable {
    /// How many programs are kept; one more empties the folder first.
    package static let capacity = 64
    /// Raised when `compile` makes another program of the same profile.
    private static let revision: UInt32 = 2

    private let directory: String

    /// - Parameter directory: made when it is needed, 0700.
    package init(directory: String) { self.directory = directory }

    /// The program of a profile, from the folder or compiled. That it cannot be kept is no error.
    ///
    /// - Throws: `SeccompError`, see `SeccompProfile.compile`.
    package func program(of profile: SeccompProfile) throws(SeccompError) -> SeccompProgram {
        let source = Self.source(of: profile)
        let path = "\(directory)/\(String(Self.checksum(source), radix: 16))"
        if let bytes = Self.read(path, source) {
            return SeccompProgram(bytes: bytes, flags: try profile.loadFlags(), skipped: profile.unknownCalls)
        }
        let program = try profile.compile()
        try? store(source + program.bytes, at: path)
        return program
    }

    private static func read(_ path: String, _ source: [UInt8]) -> [UInt8]? {
        guard let file = try? File.open(path, O_RDONLY | O_NOFOLLOW),
            let content = try? file.readAll(limit: 1 << 20, subject: path), content.starts(with: source)
        else { return nil }
        let program = Array(content[source.count...].dropLast(8))
        let sum = UInt64(littleEndian: content.suffix(8).reversed().reduce(0) { $0 << 8 | UInt64($1) })
        let isWhole = !program.isEmpty && program.count % 8 == 0 && sum == checksum(content.dropLast(8))
        return isWhole && program.count / 8 <= SeccompProfile.maximumInstructions ? program : nil
    }

    private func store(_ content: [UInt8], at path: String) throws(KernelError) {
        try File.makeDirectories(directory, mode: 0o700)
        let names = try File.list(directory)
        if names.count >= Self.capacity {
            for name in names { try File.removeFile("\(directory)/\(name)") }
        }
        // Two that compile the same at once each write a file of their own; it need not survive a crash.
        let temporary = "\(path).\(getpid())"
        do throws(KernelError) {
            let file = try File.open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW, mode: 0o600)
            let sum = Self.checksum(content)
            try file.writeAll(content + (0..<8).map { UInt8(truncatingIfNeeded: sum >> ($0 * 8)) }, subject: temporary)
        } catch {
            unlink(temporary)
            throw error
        }
        try systemCall("rename", path) { rename(temporary, path) }
    }

    /// All that the program depends on, each list and name with its length before it, so that two profiles never look
    /// alike.
    private static func source(of profile: SeccompProfile) -> [UInt8] {
        var bytes: [UInt8] = []
        func append(_ number: some FixedWidthInteger) {
            withUnsafeBytes(of: UInt64(truncatingIfNeeded: number).littleEndian) { bytes.append(contentsOf: $0) }
        }
        func append(_ text: String) {
            append(text.utf8.count)
            bytes += Array(text.utf8)
        }
        append(revision)
        let version = seccomp_version()?.pointee
        for part in [version?.major, version?.minor, version?.micro] { append(part ?? 0) }
        append(SeccompArchitecture.native.rawValue)
        append(profile.defaultAction.code)
        append(profile.architectures.count)
        for architecture in profile.architectures { append(architecture.rawValue) }
        append(profile.rules.count)
        for rule in profile.rules {
            append(rule.action.code)
            append(rule.names.count)
            for name in rule.names { append(name) }
            append(rule.comparisons.count)
            for comparison in rule.comparisons {
                append(comparison.index)
                append(comparison.operation.rawValue)
                append(comparison.value)
                append(comparison.valueTwo)
            }
        }
        return bytes
    }

    /// FNV-1a with 64 bits: it finds what is damaged, not what is forged.
    private static func checksum(_ bytes: some Sequence<UInt8>) -> UInt64 {
        bytes.reduce(0xcbf2_9ce4_8422_2325) { ($0 ^ UInt64($1)) &* 0x100_0000_01b3 }
    }
}
