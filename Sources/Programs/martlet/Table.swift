import ArgumentParser
import JSON

/// How results are printed.
struct FormatOptions: ParsableArguments {
    @Option(help: "table, json, or a template such as '{{.Name}} {{.Status}}' of the table's columns.")
    var format = "table"

    @Flag(name: .shortAndLong, help: "Print only names or ids.")
    var quiet = false
}

/// Rows for people, with the objects behind them for programs.
struct Table {
    var columns: [String]
    var rows: [[String]] = []
    var objects: [JSONValue] = []
    /// The column that `--quiet` prints.
    var key = 0

    init(_ columns: String..., key: Int = 0) {
        self.columns = columns
        self.key = key
    }

    mutating func add(_ object: some Encodable, _ cells: String...) throws {
        rows.append(cells)
        objects.append(try JSONCoding.value(object))
    }

    func print(_ options: FormatOptions) throws {
        if options.quiet {
            for row in rows { Output.line(row[key]) }
        } else if options.format == "json" {
            Output.line(String(decoding: JSONValue.array(objects).serialized(pretty: true), as: UTF8.self))
        } else if options.format == "table" {
            printTable()
        } else {
            try printTemplate(options.format)
        }
    }

    private func printTable() {
        let widths = columns.indices.map { column in
            ([columns[column]] + rows.map { $0[column] }).map(\.count).max() ?? 0
        }
        for row in [columns.map { $0.uppercased() }] + rows {
            var text = ""
            for (column, cell) in row.enumerated() {
                text += cell
                if column < row.count - 1 { text += String(repeating: " ", count: widths[column] - cell.count + 3) }
            }
            Output.line(text)
        }
    }

    /// `{{.Column}}`: the column's name, case and spaces ignored.
    private func printTemplate(_ template: String) throws {
        var pieces: [(literal: String, column: Int?)] = []
        var rest = template[...]
        while let open = rest.firstRange(of: "{{.") {
            guard let close = rest[open.upperBound...].firstRange(of: "}}") else {
                throw ValidationError("the template '\(template)' lacks a closing '}}'")
            }
            let name = rest[open.upperBound..<close.lowerBound].lowercased()
            guard let column = columns.firstIndex(where: { $0.lowercased().filter { $0 != " " } == name }) else {
                throw ValidationError("no column '\(name)'; there are: \(columns.joined(separator: ", "))")
            }
            pieces.append((String(rest[..<open.lowerBound]), column))
            rest = rest[close.upperBound...]
        }
        guard !pieces.isEmpty else {
            throw ValidationError(
                "--format takes table, json or a template such as '{{.\(columns[0])}}', not '\(template)'")
        }
        pieces.append((String(rest), nil))
        for row in rows {
            Output.line(pieces.map { $0.literal + ($0.column.map { row[$0] } ?? "") }.joined())
        }
    }
}

/// Objects that have no table: always JSON.
func printJSON(_ object: some Encodable) throws {
    Output.line(String(decoding: try JSONCoding.encode(object, pretty: true), as: UTF8.self))
}
