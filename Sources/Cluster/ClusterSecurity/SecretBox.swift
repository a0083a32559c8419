import Crypto
import FoundationEssentials
import Glibc
import JSON
import Kernel

/// Seals secrets' values for the store: AES-256-GCM with a key that lies in a file of its own.
///
/// A value is sealed together with the id and the name of its secret, so that in the store one cannot be put in the
/// place of another.
package struct SecretBox: Sendable {
    /// Before what is sealed: how it is.
    private static let version: UInt8 = 1
    private static let keyBytes = 32

    private let key: SymmetricKey

    /// Reads the key; nil when there is no file.
    ///
    /// - Throws: `SecurityError` for a file that others may read, that is not ours, or that holds no key.
    package init?(keyFile path: String) throws(SecurityError) {
        guard File.exists(path) else { return nil }
        do {
            let file = try File.open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK)
            var info = stat()
            try systemCall("fstat", path) { fstat(file.raw, &info) }
            guard info.st_mode & S_IFMT == S_IFREG else { throw SecurityError("the key \(path) is no file") }
            guard info.st_mode & 0o077 == 0, info.st_uid == geteuid() else {
                let mode = String(info.st_mode & 0o7777, radix: 8)
                throw SecurityError(
                    "the key \(path) can be read by others (owner \(info.st_uid), mode \(mode)): give it to its owner alone "
                        + "with `chown \(geteuid()) \(path)` and `chmod 600 \(path)`, and replace the secrets if somebody "
                        + "may have read it")
            }
            let bytes = try file.readAll(limit: 4096, subject: path)
            guard bytes.count == Self.keyBytes else {
                throw SecurityError(
                    "the key \(path) has \(bytes.count) bytes instead of \(Self.keyBytes): restore it from a backup")
            }
            key = SymmetricKey(data: bytes)
        } catch let error as SecurityError {
            throw error
        } catch {
            throw SecurityError("the key of the secrets cannot be read: \(error)")
        }
    }

    /// Makes a key and its file, mode 0600, durable before anything is sealed with it. Blocks.
    ///
    /// - Throws: `SecurityError`, also when there is a file already.
    package init(makingKeyFile path: String) throws(SecurityError) {
        key = SymmetricKey(size: .bits256)
        let bytes = key.withUnsafeBytes { Array($0) }
        let temporary = path + ".new"
        do {
            try File.removeFile(temporary)
            do {
                defer { unlink(temporary) }
                let file = try File.open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, mode: 0o600)
                try file.writeAll(bytes, subject: temporary)
                try systemCall("fsync", temporary) { fsync(file.raw) }
                // Unlike rename, this never replaces a key.
                try systemCall("link", path) { link(temporary, path) }
            }
            try File.syncDirectory(of: path)
        } catch {
            throw SecurityError("the key of the secrets cannot be made: \(error)")
        }
    }

    /// Seals a value, with a random nonce; the result is base64.
    package func seal(_ value: [UInt8], id: String, name: String) throws(SecurityError) -> String {
        do {
            let box = try AES.GCM.seal(value, using: key, authenticating: Self.context(id, name))
            guard let combined = box.combined else { throw SecurityError("the secret \(name) cannot be sealed") }
            return Base64.encode([Self.version] + Array(combined))
        } catch let error as SecurityError {
            throw error
        } catch {
            throw SecurityError("the secret \(name) cannot be sealed: \(error)")
        }
    }

    /// - Throws: `SecurityError` for anything that was not sealed with this key for this secret.
    package func open(_ sealed: String, id: String, name: String) throws(SecurityError) -> [UInt8] {
        guard let bytes = Base64.decode(sealed), let version = bytes.first else {
            throw SecurityError("the stored value of the secret \(name) is damaged: restore the store from a backup")
        }
        guard version == Self.version else {
            throw SecurityError("the secret \(name) was sealed by another version of this program (form \(version))")
        }
        do {
            let box = try AES.GCM.SealedBox(combined: bytes.dropFirst())
            return Array(try AES.GCM.open(box, using: key, authenticating: Self.context(id, name)))
        } catch {
            throw SecurityError(
                "the secret \(name) cannot be opened: it was sealed with another key, or its record was changed; restore "
                    + "the key that belongs to this store, or remove the secret and make it anew")
        }
    }

    /// Names and ids contain no NUL.
    private static func context(_ id: String, _ name: String) -> [UInt8] {
        Array("martlet secret\0\(id)\0\(name)".utf8)
    }
}
