/// The socket of a shim: what its clients (the agent) and the shim say to each other.
///
/// A stream socket, mode 0600, peers of uid 0 only. A client connects and sends one control frame with a `ShimRequest`;
/// the shim answers with a control frame (`ShimResponse`) or an error frame with a sentence. After `attach` and `exec`
/// the same connection carries frames in both directions until the exit frame; after `events` the shim sends a control
/// frame with a `ShimEvent` for every change. After any other answer the shim closes.
///
/// Versions: `hello` tells the shim's. Within a version, fields may be added, so readers ignore unknown ones; an op
/// that a shim does not know is refused by name. What was added to a version is told by `hello` as well, in `features`:
/// a shim that names none is of the time before there were any.
///
/// Start: the agent makes the socket's directory (0700) and starts `martlet-shim` as `ShimOptions.arguments` has it, in
/// a session of its own, stdio on /dev/null, with the write end of a pipe as descriptor `--ready-fd`. The shim writes
/// `ready` to it when it listens, or a sentence why it cannot, and closes it; no bytes at all means that it died.
///
/// Signals: a shim ignores SIGTERM, SIGINT and SIGHUP while a container lives; without one they end it. It also ends
/// itself after `shutdown`, and when it has no container any more and its socket's path is gone.
package enum ShimProtocol {
    /// Changes when a reader of the old form would misunderstand the new one.
    package static let version = 1
    /// What has been added to the version.
    package static let features = [leases]
    /// The feature of `lease` and `release`.
    package static let leases = "leases"
    /// What the shim writes to its ready descriptor.
    package static let ready = "ok\n"
    /// Longest message, in bytes; the frames' own limit.
    package static let messageLimit = 1 << 20
    /// Connections beyond this many are closed at once with an error frame.
    package static let connectionLimit = 256
    /// Containers in one shim.
    package static let containerLimit = 64
    /// Finished execs that `state` still tells about; the oldest are forgotten first.
    package static let finishedExecLimit = 64
}

/// How a shim is started.
package struct ShimOptions: Sendable, Equatable {
    /// The socket to listen on; its directory must exist and is the shim's for temporary files.
    package var socket: String
    /// The OCI runtime's program; absolute.
    package var runtime: String
    /// The runtime's `--root`.
    package var runtimeRoot: String
    /// The task whose containers these are.
    package var taskID: String
    /// A file for the shim's pid.
    package var pidFile: String?
    /// A cgroup below every hierarchy's root to enter, such as `martlet/shims`.
    package var cgroup: String?
    /// The descriptor to report readiness on.
    package var readyFD: Int32?

    package init(
        socket: String, runtime: String, runtimeRoot: String, taskID: String, pidFile: String? = nil,
        cgroup: String? = nil, readyFD: Int32? = nil
    ) {
        self.socket = socket
        self.runtime = runtime
        self.runtimeRoot = runtimeRoot
        self.taskID = taskID
        self.pidFile = pidFile
        self.cgroup = cgroup
        self.readyFD = readyFD
    }

    /// The arguments after the program's name.
    package var arguments: [String] {
        var arguments = [
            "--socket", socket, "--runtime", runtime, "--runtime-root", runtimeRoot, "--task-id", taskID,
        ]
        if let pidFile { arguments += ["--pid-file", pidFile] }
        if let cgroup { arguments += ["--cgroup", cgroup] }
        if let readyFD { arguments += ["--ready-fd", String(readyFD)] }
        return arguments
    }

    /// Reads what `arguments` writes, options in any order.
    ///
    /// - Throws: `ShimOptionsError` for an option that is unknown, twice there, missing or not an absolute path.
    package init(arguments: [String]) throws(ShimOptionsError) {
        var values: [String: String] = [:]
        var rest = arguments[...]
        let known: Set<String> = [
            "--socket", "--runtime", "--runtime-root", "--task-id", "--pid-file", "--cgroup", "--ready-fd",
        ]
        while let name = rest.popFirst() {
            guard known.contains(name) else { throw ShimOptionsError("option \(name) is not known") }
            guard let value = rest.popFirst(), !value.isEmpty else {
                throw ShimOptionsError("option \(name) needs a value")
            }
            guard values.updateValue(value, forKey: name) == nil else {
                throw ShimOptionsError("option \(name) is there twice")
            }
        }
        func required(_ name: String) throws(ShimOptionsError) -> String {
            guard let value = values[name] else { throw ShimOptionsError("option \(name) is missing") }
            return value
        }
        func path(_ name: String) throws(ShimOptionsError) -> String {
            let value = try required(name)
            guard value.utf8.first == UInt8(ascii: "/") else {
                throw ShimOptionsError("\(name) \(value) is not an absolute path")
            }
            return value
        }
        socket = try path("--socket")
        runtime = try path("--runtime")
        runtimeRoot = try path("--runtime-root")
        taskID = try required("--task-id")
        pidFile = values["--pid-file"] == nil ? nil : try path("--pid-file")
        cgroup = values["--cgroup"]
        readyFD = nil
        if let text = values["--ready-fd"] {
            guard let number = Int32(text), number > 2 else {
                throw ShimOptionsError("--ready-fd \(text) is not a descriptor above 2")
            }
            readyFD = number
        }
    }
}

/// Why a shim's command line is refused.
package struct ShimOptionsError: Error, Sendable, Equatable, CustomStringConvertible {
    /// One sentence.
    package let description: String
    init(_ description: String) { self.description = description }
}
