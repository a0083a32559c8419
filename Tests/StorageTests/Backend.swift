import Glibc
import Kernel
import Testing

@testable import Storage

/// The stores that the contract holds for. A new one is a new case; its store must be empty for every `body`.
enum Backend: String, CaseIterable, Sendable, CustomTestStringConvertible {
    case sqlite

    var testDescription: String { rawValue }

    /// Runs `body` with an empty store.
    func withStore<Result>(_ body: (any Store) async throws -> Result) async throws -> Result {
        switch self {
        case .sqlite:
            try await withDirectory { try await body(try SQLiteStore(path: $0 + "/martlet.db")) }
        }
    }
}

/// A directory of its own for the length of `body`.
func withDirectory<Result>(_ body: (String) async throws -> Result) async throws -> Result {
    var name = Array("/tmp/martlet-store-XXXXXX".utf8CString)
    guard mkdtemp(&name) != nil else { throw KernelError("mkdtemp", "/tmp", errno: errno) }
    let directory = String(decoding: name.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
    defer { _ = try? Tree.remove(directory) }
    return try await body(directory)
}

extension [UInt8] {
    init(_ text: String) { self = Array(text.utf8) }
}

extension StoreBatch {
    /// `+key=value` and `-key`, for comparing at a glance.
    var summary: [String] {
        changes.map { change in
            switch change {
            case .put(let entry): "+\(entry.key)=\(String(decoding: entry.value, as: UTF8.self))"
            case .delete(let key): "-\(key)"
            }
        }
    }
}
