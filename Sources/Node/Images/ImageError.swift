import Glibc
import JSON
import Kernel

/// Why an operation on images was refused or failed. The message is one sentence that names the object, the reason and,
/// where there is something to do, what to do next.
package struct ImageError: Error, Sendable, Equatable, CustomStringConvertible {
    /// What kind of failure it is; the API chooses its status from it.
    package enum Kind: Sendable, Equatable {
        /// A name, digest, platform, path or user that does not have the form it must have.
        case invalidArgument
        /// An archive, manifest, configuration or layer that is malformed, ambiguous or hostile.
        case invalidArchive
        /// More bytes, entries, depth or compression than `ImageLimits` allows.
        case limitExceeded
        /// Something well-formed that Martlet does not read or write.
        case unsupported
        case notFound
        /// A short id that stands for several images.
        case ambiguous
        /// The image is used, or known under further names; the files are changed meanwhile.
        case inUse
        /// Content in the store that is no longer what its digest says; it has been put aside.
        case corrupted
        /// A registry wants a login, or refuses the one that it was given.
        case unauthorized
        /// A registry or another node cannot be reached, is too slow, or fails; trying again later may help.
        case unavailable
        /// The file system is full (or its quota is used up); nothing was kept.
        case noSpace
        /// A system call failed.
        case system
    }

    package let kind: Kind
    package let message: String

    package init(_ kind: Kind, _ message: String) {
        self.kind = kind
        self.message = message
    }

    package var description: String { message }
}

extension ImageError {
    /// Runs one operation of the store and gives what it throws the shape of an `ImageError`.
    ///
    /// - Parameter operation: what is being done, to be read after "while": `importing an image`.
    static func explaining<Result>(_ operation: @autoclosure () -> String, _ body: () throws -> Result) throws -> Result
    {
        do {
            return try body()
        } catch {
            throw explained(error, while: operation())
        }
    }

    /// The same for an operation that waits.
    static func explaining<Result>(
        _ operation: @autoclosure () -> String, isolation: isolated (any Actor)? = #isolation,
        waiting body: () async throws -> Result
    ) async throws -> Result {
        do {
            return try await body()
        } catch {
            throw explained(error, while: operation())
        }
    }

    private static func explained(_ error: any Error, while operation: String) -> any Error {
        switch error {
        case let error as KernelError where error.isOutOfSpace:
            ImageError(
                .noSpace, "no space left while \(operation) (\(error)); nothing was kept, free some space and repeat")
        case let error as KernelError: ImageError(.system, "failed while \(operation): \(error)")
        case let error as JSONError: ImageError(.invalidArchive, "failed while \(operation): \(error)")
        default: error
        }
    }
}

/// Bytes from outside as text for a message, see `ByteName.text`.
func printable(_ bytes: some Sequence<UInt8>) -> String { ByteName.text(bytes) }

/// Text from outside for a message.
func printable(_ text: String) -> String { ByteName.text(text.utf8) }
