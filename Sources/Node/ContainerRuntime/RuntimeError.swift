import Kernel

/// What the user of the runtime did wrong or asked for in vain: one line, what failed, on what, and why.
struct RuntimeError: Error, Sendable, CustomStringConvertible {
    let description: String

    init(_ description: String) { self.description = description }

    /// Adds what was being done when something failed.
    init(_ context: String, _ cause: any Error) { description = "\(context): \(cause)" }

    static func noContainer(_ id: String) -> RuntimeError {
        RuntimeError("container does not exist: \(id)")
    }

    static func alreadyExists(_ id: String) -> RuntimeError {
        RuntimeError("container with given ID already exists: \(id)")
    }

    static var notRunning: RuntimeError { RuntimeError("container not running") }
}

/// A command line that cannot be understood: told before anything is done.
struct UsageError: Error, Sendable, CustomStringConvertible {
    let description: String
    /// The exit status, also of verbs whose failures have another one.
    var status: Int32 = 1

    init(_ description: String, status: Int32 = 1) {
        self.description = description
        self.status = status
    }
}

/// A part of the configuration that is wrong or that this runtime does not honour; named by its place.
struct RefusedField: Error, Sendable, CustomStringConvertible {
    /// As in `linux.intelRdt` or `mounts[3].options`.
    let path: String
    let reason: String

    init(_ path: String, _ reason: String = "this runtime does not support it") {
        self.path = path
        self.reason = reason
    }

    var description: String { "config.json: \(path): \(reason)" }
}

/// Runs `body`; an error gets a context.
func withContext<Result: ~Copyable>(_ context: @autoclosure () -> String, _ body: () throws -> Result) throws -> Result
{
    do {
        return try body()
    } catch {
        throw RuntimeError(context(), error)
    }
}
