import Cgroups
import Glibc
import JSON
import Kernel

extension Verb {
    static let ps = Verb(
        name: "ps", usage: "[command options] <container-id> [ps options]",
        summary: "list the processes of a container",
        flags: { [Flag("format", "f", value: "FORMAT", help: "table (default) or json")] }
    ) { call in
        try call.arguments.require("ps", atLeast: 1, atMost: 64)
        let record = try call.store.require(try call.containerID())
        try record.cgroup.require("list its processes")
        let processes = try record.cgroup.manager.processes()
        switch call.arguments.value("format") ?? "table" {
        case "json":
            let value = JSONValue.array(processes.map { .integer(Int64($0)) })
            print(String(decoding: value.serialized(), as: UTF8.self))
        case "table": try printTable(processes, Array(call.arguments.positional.dropFirst()))
        case let format: throw RuntimeError("ps: invalid format '\(format)': table and json are known")
        }
        return 0
    }

    /// The lines of the host's ps(1) that belong to these processes.
    private static func printTable(_ processes: [pid_t], _ options: [String]) throws {
        let path = ["/usr/bin/ps", "/bin/ps"].first { File.exists($0) }
        guard let path else { throw RuntimeError("ps: the host has no ps(1); use --format json") }
        let result = try Kernel.Program(path, options.isEmpty ? ["-ef"] : options, outputLimit: 16 << 20).run()
        guard result.status == .exited(0) else { throw RuntimeError("ps: \(result.errorText)") }
        let lines = String(decoding: result.output, as: UTF8.self).split(separator: "\n")
        guard let header = lines.first,
            let column = header.split(separator: " ").firstIndex(of: "PID")
        else { throw RuntimeError("ps: no PID column in the output of ps(1): choose options that show it") }
        let wanted = Set(processes.map { String($0) })
        print(header)
        for line in lines.dropFirst() {
            let fields = line.split(separator: " ")
            if column < fields.count, wanted.contains(String(fields[column])) { print(line) }
        }
    }
}
