package import JSON

/// What a client asks of a shim; one a connection.
package enum ShimRequest: Sendable, Equatable {
    /// Who is there: answers with `version`, `pid` and `task`.
    case hello
    /// All containers and execs.
    case state
    /// Makes a container with its stdio, up to but not including the start of its process.
    ///
    /// Idempotent for a start number: the same container and start again answer with the present state. A higher start
    /// number is accepted once the one before has stopped; what is left of that is deleted first.
    case create(ShimCreate)
    case start(container: String)
    /// Sends a signal to the container's first process, or with `all` to every process in it.
    case signal(container: String, signal: Int32, all: Bool)
    case pause(container: String)
    case resume(container: String)
    /// Lets the container run until the moment given, and ends it then; see `ShimLease`. Refused once the lease before
    /// has run out under a container that lives: that one ends.
    case lease(ShimLease)
    /// The container needs no lease any more; without one it may run for ever. One that is being ended ends.
    case release(container: String)
    /// Removes a stopped container from runtime and shim; with `force`, a running one is killed first. Its log and exit
    /// record stay. One that is not there is deleted already: no error.
    case delete(container: String, force: Bool)
    /// Runs a further process in a running container. After the answer the connection carries its frames. When the
    /// client goes away the process goes on, its output is dropped and its standard input ends.
    case exec(ShimExec)
    /// Joins the container's stdio. Frames in: stdin, end(0), resize, signal; out: stdout, stderr, exit. One that has
    /// exited already is answered with its exit frame.
    case attach(ShimAttach)
    /// Sets the size of the container's terminal.
    case resize(container: String, columns: UInt16, rows: UInt16)
    /// A control frame for every change, the first with all there is.
    case events
    /// Ends the shim; refused while a container lives.
    case shutdown

    /// The name on the wire.
    package var operation: String {
        switch self {
        case .hello: "hello"
        case .state: "state"
        case .create: "create"
        case .start: "start"
        case .signal: "signal"
        case .pause: "pause"
        case .resume: "resume"
        case .lease: "lease"
        case .release: "release"
        case .delete: "delete"
        case .exec: "exec"
        case .attach: "attach"
        case .resize: "resize"
        case .events: "events"
        case .shutdown: "shutdown"
        }
    }
}

/// A container to make.
package struct ShimCreate: Codable, Sendable, Equatable {
    /// The runtime's id of the container: 1 to 128 characters out of letters, digits, `_`, `-`, `.` and `+`.
    package var container: String
    /// Counts the container's starts within its task, from 1.
    package var start: Int
    /// The directory with config.json.
    package var bundle: String
    /// Stdio is a pseudo-terminal; config.json must say the same.
    package var terminal: Bool
    /// Standard input comes from attached clients; otherwise it is /dev/null.
    package var stdin: Bool
    /// Standard input ends when a client that is attached with stdin sends `end(0)`; true when absent. When false it
    /// stays open for the next client. A client that merely disconnects never ends it, since an agent may be restarted
    /// at any time. A terminal has no half-close: `end(0)` does nothing there.
    package var stdinOnce: Bool?
    /// The log file, see `LogRecord`; nil for no log. Its directory must exist.
    package var logPath: String?
    /// The log is rotated before it grows beyond this; nil for never.
    package var logMaxBytes: Int64?
    /// Log files kept, the current one included; 1 when absent.
    package var logMaxFiles: Int?
    /// Where the `ExitRecord` goes. Its directory must exist.
    package var exitPath: String
    /// The container's cgroup directories in the host's hierarchies, for finding OOM kills.
    package var cgroups: [String]

    package init(
        container: String, start: Int, bundle: String, terminal: Bool = false, stdin: Bool = false,
        stdinOnce: Bool? = nil, logPath: String? = nil, logMaxBytes: Int64? = nil, logMaxFiles: Int? = nil,
        exitPath: String, cgroups: [String] = []
    ) {
        self.container = container
        self.start = start
        self.bundle = bundle
        self.terminal = terminal
        self.stdin = stdin
        self.stdinOnce = stdinOnce
        self.logPath = logPath
        self.logMaxBytes = logMaxBytes
        self.logMaxFiles = logMaxFiles
        self.exitPath = exitPath
        self.cgroups = cgroups
    }
}

/// A process to run in a container.
package struct ShimExec: Codable, Sendable, Equatable {
    /// The container's id.
    package var container: String
    /// Names the process within the container; the same characters as a container's id, at most 64. One that is in use
    /// is refused.
    package var execID: String
    /// The OCI `process` object.
    package var process: JSONValue
    /// The same as in the process object.
    package var terminal: Bool
    /// Standard input comes from this connection; otherwise it is /dev/null.
    package var stdin: Bool
    /// After this many seconds the process is killed with SIGKILL and reported as exited with 137.
    package var deadlineSeconds: Int?

    package init(
        container: String, execID: String, process: JSONValue, terminal: Bool = false, stdin: Bool = false,
        deadlineSeconds: Int? = nil
    ) {
        self.container = container
        self.execID = execID
        self.process = process
        self.terminal = terminal
        self.stdin = stdin
        self.deadlineSeconds = deadlineSeconds
    }
}

/// A container's stdio to join.
package struct ShimAttach: Codable, Sendable, Equatable {
    /// The container's id.
    package var container: String
    /// Sends input, and may end it.
    package var stdin: Bool
    /// Gets standard output, and a terminal's.
    package var stdout: Bool
    /// Gets standard error.
    package var stderr: Bool

    package init(container: String, stdin: Bool = false, stdout: Bool = true, stderr: Bool = true) {
        self.container = container
        self.stdin = stdin
        self.stdout = stdout
        self.stderr = stderr
    }
}

extension ShimRequest: Codable {
    private enum Key: String, CodingKey {
        case op, container, signal, all, force, columns, rows
    }

    /// - Throws: `DecodingError` naming an unknown op.
    package init(from decoder: any Decoder) throws {
        let fields = try decoder.container(keyedBy: Key.self)
        func container() throws -> String { try fields.decode(String.self, forKey: .container) }
        let operation = try fields.decode(String.self, forKey: .op)
        switch operation {
        case "hello": self = .hello
        case "state": self = .state
        case "create": self = .create(try ShimCreate(from: decoder))
        case "start": self = .start(container: try container())
        case "signal":
            self = .signal(
                container: try container(), signal: try fields.decode(Int32.self, forKey: .signal),
                all: try fields.decodeIfPresent(Bool.self, forKey: .all) ?? false)
        case "pause": self = .pause(container: try container())
        case "resume": self = .resume(container: try container())
        case "lease": self = .lease(try ShimLease(from: decoder))
        case "release": self = .release(container: try container())
        case "delete":
            self = .delete(
                container: try container(), force: try fields.decodeIfPresent(Bool.self, forKey: .force) ?? false)
        case "exec": self = .exec(try ShimExec(from: decoder))
        case "attach": self = .attach(try ShimAttach(from: decoder))
        case "resize":
            self = .resize(
                container: try container(), columns: try fields.decode(UInt16.self, forKey: .columns),
                rows: try fields.decode(UInt16.self, forKey: .rows))
        case "events": self = .events
        case "shutdown": self = .shutdown
        default:
            throw DecodingError.dataCorruptedError(
                forKey: .op, in: fields,
                debugDescription: "this shim has no operation \(JSONPathElement.quoted(operation))")
        }
    }

    package func encode(to encoder: any Encoder) throws {
        var fields = encoder.container(keyedBy: Key.self)
        try fields.encode(operation, forKey: .op)
        switch self {
        case .hello, .state, .events, .shutdown: break
        case .create(let create): try create.encode(to: encoder)
        case .exec(let exec): try exec.encode(to: encoder)
        case .attach(let attach): try attach.encode(to: encoder)
        case .lease(let lease): try lease.encode(to: encoder)
        case .start(let container), .pause(let container), .resume(let container), .release(let container):
            try fields.encode(container, forKey: .container)
        case .signal(let container, let signal, let all):
            try fields.encode(container, forKey: .container)
            try fields.encode(signal, forKey: .signal)
            try fields.encode(all, forKey: .all)
        case .delete(let container, let force):
            try fields.encode(container, forKey: .container)
            try fields.encode(force, forKey: .force)
        case .resize(let container, let columns, let rows):
            try fields.encode(container, forKey: .container)
            try fields.encode(columns, forKey: .columns)
            try fields.encode(rows, forKey: .rows)
        }
    }
}
