import Glibc
import JSON
import Kernel

/// Why an operation on volumes was refused or failed: one sentence that names the object, the reason and, where there is
/// something to do, what to do next.
package struct VolumeError: Error, Sendable, Equatable, CustomStringConvertible {
    /// What kind of failure it is; the API chooses its status from it.
    package enum Kind: Sendable, Equatable {
        /// A name, path or option that does not have the form it must have.
        case invalidArgument
        /// Something well-formed that Martlet does not do.
        case unsupported
        case notFound
        /// The volume is used, or exists with other options.
        case inUse
        /// A bind mount that would give a container Martlet's own state.
        case refused
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

extension VolumeError {
    /// Runs one operation and gives what it throws the shape of a `VolumeError`.
    ///
    /// - Parameter operation: what is being done, to be read after "while".
    static func explaining<Result: ~Copyable>(
        _ operation: @autoclosure () -> String, _ body: () throws -> Result
    ) throws -> Result {
        do {
            return try body()
        } catch let error as KernelError where error.isOutOfSpace {
            throw VolumeError(
                .noSpace, "no space left while \(operation()) (\(error)); nothing was kept, free some space and repeat")
        } catch let error as KernelError {
            throw VolumeError(.system, "failed while \(operation()): \(error)")
        } catch let error as JSONError {
            throw VolumeError(.system, "failed while \(operation()): \(error)")
        }
    }
}
