import Glibc
import JSON
import Kernel

/// The program's own standard output and error, unbuffered.
enum Output {
    static func line(_ text: String) { bytes(Array((text + "\n").utf8), to: 1) }

    static func json(_ value: some Encodable) throws {
        line(String(decoding: try JSONCoding.encode(value, pretty: true), as: UTF8.self))
    }

    static func error(_ text: String) { bytes(Array((text + "\n").utf8), to: 2) }

    /// A reader that went away ends the program quietly, as `yes | head` does.
    static func bytes(_ bytes: [UInt8], to descriptor: Int32) {
        do throws(KernelError) {
            try Descriptor.writeAll(descriptor, bytes, subject: descriptor == 1 ? "standard output" : "standard error")
        } catch {
            if error.errno == EPIPE { exit(0) }
            if descriptor == 1 { Output.error("martlet: \(error)") }
            exit(1)
        }
    }

    static var isTerminal: Bool { isatty(2) == 1 }
}

/// One line on the terminal that shows how far a long piece of work is; nothing when the output is no terminal.
struct Progress {
    let what: String
    let total: Int64?
    private var shown: Int64 = -1

    init(_ what: String, total: Int64?) {
        self.what = what
        self.total = total
    }

    mutating func update(_ done: Int64) {
        guard Output.isTerminal, done - shown >= 1 << 20 || shown < 0 else { return }
        shown = done
        var text = "\r\(what): \(ByteSize.text(done))"
        if let total, total > 0 {
            let filled = min(30, Int(done * 30 / total))
            text +=
                " of \(ByteSize.text(total)) [" + String(repeating: "=", count: filled)
                + String(repeating: " ", count: 30 - filled) + "]"
        }
        Output.bytes(Array(text.utf8), to: 2)
    }

    func finish() {
        if Output.isTerminal && shown >= 0 { Output.bytes(Array("\r\u{1B}[K".utf8), to: 2) }
    }
}

extension Timestamp {
    /// `12 seconds ago`: how long before `now`.
    func ago(_ now: Timestamp = .now()) -> String { "\(age(now)) ago" }

    /// `3 minutes`: the largest unit that says enough.
    func age(_ now: Timestamp = .now()) -> String {
        let seconds = max(0, (now.nanoseconds - nanoseconds) / 1_000_000_000)
        func count(_ number: Int64, _ unit: String) -> String { "\(number) \(unit)\(number == 1 ? "" : "s")" }
        switch seconds {
        case ..<60: return count(seconds, "second")
        case ..<3600: return count(seconds / 60, "minute")
        case ..<172_800: return count(seconds / 3600, "hour")
        default: return count(seconds / 86400, "day")
        }
    }
}
