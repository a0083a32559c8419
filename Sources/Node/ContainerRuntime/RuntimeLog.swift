import Glibc
import JSON
import Kernel

/// The log that `--log` names, in runc's two formats; without one, warnings and errors go to standard error.
struct RuntimeLog {
    enum Format: String, CaseIterable {
        case text, json
    }

    enum Level: String {
        case debug, info, warning, error
    }

    private let file: SharedFD?
    private let format: Format
    private let debug: Bool

    /// Errors to standard error only: until the command line is understood.
    static var standard: RuntimeLog { RuntimeLog() }

    private init() {
        file = nil
        format = .text
        debug = false
    }

    /// - Parameter path: a file to append to, or nil.
    init(path: String?, format: Format, debug: Bool) throws {
        self.format = format
        self.debug = debug
        file = try path.map { SharedFD(try File.open($0, O_WRONLY | O_CREAT | O_APPEND, mode: 0o644)) }
    }

    /// Writes one entry. A log that cannot be written does not stop the runtime.
    func write(_ level: Level, _ message: @autoclosure () -> String) {
        if level == .debug && !debug { return }
        let message = message()
        guard let file else {
            if level != .error { Self.standardError("martlet-runtime: \(level.rawValue): \(message)") }
            return
        }
        try? Descriptor.writeAll(file.raw, entry(level, message))
    }

    /// The last word of a failed call: to the log and, as one line, to standard error.
    func fail(_ message: String) {
        write(.error, message)
        Self.standardError("martlet-runtime: \(message)")
    }

    private func entry(_ level: Level, _ message: String) -> [UInt8] {
        let time = Timestamp(nanoseconds: Timestamp.now().nanoseconds / 1_000_000_000 * 1_000_000_000)
        switch format {
        case .json:
            let value: JSONValue = [
                "level": .string(level.rawValue), "msg": .string(message), "time": .string(time.description),
            ]
            return value.serialized() + [10]
        case .text:
            let quoted = String(decoding: JSONValue.string(message).serialized(), as: UTF8.self)
            return Array("time=\"\(time)\" level=\(level.rawValue) msg=\(quoted)\n".utf8)
        }
    }

    private static func standardError(_ line: String) {
        let single = line.split(whereSeparator: \.isNewline).joined(separator: " ")
        try? Descriptor.writeAll(2, Array("\(single)\n".utf8))
    }
}
