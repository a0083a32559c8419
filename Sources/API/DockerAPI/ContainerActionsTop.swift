import Client
import HTTPService
import Hummingbird
import Master
import MasterCore
import Model
import NIOHTTP1
import Wire

/// `docker top`: the processes of a container, in the columns that were asked for as ps(1) is.
extension DockerAPI {
    func top(_ call: DockerCall) async throws -> Response {
        let columns = try TopColumns(call.query.text("ps_args") ?? "-ef")
        let view = try await container(call.id)
        guard view.summaryState.isActive, view.summaryState != .restarting else { throw Self.notRunning(view) }
        let (streams, task) = try await streams(of: view)
        let words = columns.columns.map(\.rawValue).joined(separator: ",")
        let list = try await streams.json(
            ProcessList.self, .GET, NodeStreams.path(task, "top"), query: "columns=\(words)")
        return try .docker(TopAnswer(titles: columns.titles, processes: list.processes))
    }

    private struct TopAnswer: Encodable {
        let titles: [String]
        let processes: [[String]]

        enum CodingKeys: String, CodingKey {
            case titles = "Titles"
            case processes = "Processes"
        }
    }
}

/// What arguments of ps mean: a whole format (`-ef`, `aux`), or columns by name (`-o pid,comm`).
struct TopColumns {
    private(set) var columns: [ProcessColumn] = []
    private(set) var titles: [String] = []

    /// - Throws: `DockerError` 400 for what is not served, by name.
    init(_ arguments: String) throws {
        var words = arguments.split(whereSeparator: \.isWhitespace).map(String.init)[...]
        while let word = words.popFirst() {
            let letters = word.hasPrefix("-") ? word.dropFirst() : word[...]
            switch true {
            // Which processes are shown is not ps's to say here.
            case letters.isEmpty, letters.allSatisfy({ "eA".contains($0) }): break
            case letters == "o" || letters == "eo" || letters == "Ao" || word == "--format":
                guard let list = words.popFirst() else { throw Self.refused("\(word) without columns") }
                try add(list)
            case letters.hasPrefix("o"), letters.hasPrefix("eo"): try add(letters.drop { $0 != "o" }.dropFirst())
            case letters.contains("f") && letters.allSatisfy({ "efA".contains($0) }):
                add([
                    (.user, "UID"), (.pid, "PID"), (.ppid, "PPID"), (.c, "C"), (.stime, "STIME"), (.tty, "TTY"),
                    (.time, "TIME"), (.args, "CMD"),
                ])
            case letters.contains("u") && letters.allSatisfy({ "aux".contains($0) }):
                add([
                    (.user, "USER"), (.pid, "PID"), (.pcpu, "%CPU"), (.pmem, "%MEM"), (.vsz, "VSZ"), (.rss, "RSS"),
                    (.tty, "TTY"), (.stat, "STAT"), (.stime, "START"), (.time, "TIME"), (.args, "COMMAND"),
                ])
            case letters.allSatisfy({ "ax".contains($0) }):
                add([(.pid, "PID"), (.tty, "TTY"), (.stat, "STAT"), (.time, "TIME"), (.args, "COMMAND")])
            default: throw Self.refused(word)
            }
        }
        if columns.isEmpty { add([(.pid, "PID"), (.tty, "TTY"), (.time, "TIME"), (.comm, "CMD")]) }
    }

    private mutating func add(_ list: [(ProcessColumn, String)]) {
        columns += list.map(\.0)
        titles += list.map(\.1)
    }

    private mutating func add(_ list: some StringProtocol) throws {
        for word in list.split(separator: ",") {
            let name = String(word)
            let other: [String: (ProcessColumn, String)] = [
                "cmd": (.args, "CMD"), "command": (.args, "COMMAND"), "args": (.args, "COMMAND"),
                "ucmd": (.comm, "CMD"), "ucomm": (.comm, "COMMAND"), "%cpu": (.pcpu, "%CPU"), "%mem": (.pmem, "%MEM"),
                "uname": (.user, "USER"), "euser": (.user, "EUSER"), "euid": (.uid, "EUID"), "tt": (.tty, "TT"),
                "tname": (.tty, "TTY"), "s": (.stat, "S"), "state": (.stat, "S"), "start": (.stime, "STARTED"),
                "start_time": (.stime, "START"), "cputime": (.time, "TIME"), "vsize": (.vsz, "VSZ"),
                "rssize": (.rss, "RSS"), "thcount": (.nlwp, "THCNT"),
            ]
            if let known = other[name] {
                add([known])
            } else if let column = ProcessColumn(rawValue: name) {
                add([(column, column.title)])
            } else {
                throw Self.refused("column \(name)")
            }
        }
    }

    private static func refused(_ what: String) -> DockerError {
        .unsupported(
            "ps_args",
            "'\(what.prefix(80))': -ef, aux, ax, and -o with columns such as pid,ppid,user,stat,time,args are")
    }
}
