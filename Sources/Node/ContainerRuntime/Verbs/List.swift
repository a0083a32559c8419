import JSON
import OCISpec

extension Verb {
    static let list = Verb(
        name: "list", usage: "[command options]", summary: "list the containers of a root",
        flags: {
            [
                Flag("format", "f", value: "FORMAT", help: "table (default) or json"),
                Flag("quiet", "q", help: "ids only"),
            ]
        }
    ) { call in
        try call.arguments.require("list", atLeast: 0, atMost: 0)
        let format = call.arguments.value("format") ?? "table"
        guard format == "table" || format == "json" else {
            throw RuntimeError("list: invalid format '\(format)': table and json are known")
        }
        if call.arguments.has("quiet") {
            for id in try call.store.list() { print(id) }
            return 0
        }
        var containers: [JSONObject] = []
        for id in try call.store.list() {
            // One that goes away meanwhile, or is just being made, is left out.
            guard let record = try? call.store.read(id), let status = try? call.store.status(record) else { continue }
            containers.append(record.shown(status, owner: call.store.owner(id)))
        }
        if format == "json" {
            print(String(decoding: JSONValue.array(containers.map { .object($0) }).serialized(), as: UTF8.self))
            return 0
        }
        let columns = ["id", "pid", "status", "bundle", "created", "owner"]
        let rows = containers.map { object in
            columns.map { object[$0]?.stringValue ?? object[$0]?.intValue.map { String($0) } ?? "" }
        }
        print(Table.text([columns.map { $0.uppercased() }] + rows))
        return 0
    }
}

/// Columns of text.
enum Table {
    /// Every cell but a row's last is as wide as the widest of its column, at least 12, with three blanks after it.
    static func text(_ rows: [[String]]) -> String {
        var widths: [Int] = []
        for row in rows {
            for (index, cell) in row.enumerated() {
                if index == widths.count { widths.append(9) }
                widths[index] = max(widths[index], cell.count)
            }
        }
        return rows.map { row in
            row.enumerated().map { index, cell in
                index == row.count - 1 ? cell : cell + String(repeating: " ", count: widths[index] + 3 - cell.count)
            }.joined()
        }.joined(separator: "\n")
    }
}
