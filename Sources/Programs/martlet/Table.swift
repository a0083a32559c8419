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

/// How the `inspect` verbs print, whose objects have no table.
struct InspectOptions: ParsableArguments {
    @Option(
        name: .shortAndLong,
        help: "json, or a template such as '{{.status.phase}}' of the fields; {{json .status}} prints one as JSON.")
    var format = "json"

    /// Prints what is found; what is not found is said, and does not spare the others.
    func print(_ names: [String], _ find: (String) async throws -> some Encodable) async throws {
        let template = format == "json" ? nil : try FieldTemplate(format)
        var found: [JSONValue] = []
        defer {
            if template == nil {
                Output.line(String(decoding: JSONValue.array(found).serialized(pretty: true), as: UTF8.self))
            }
        }
        try await forEach(names) { name in
            let value = try JSONCoding.value(try await find(name))
            if let template { Output.line(template.text(of: value)) } else { found.append(value) }
        }
    }
}

/// `{{.path.of.fields}}` in a text, numbers being indices of arrays.
struct FieldTemplate {
    private var pieces: [(literal: String, path: [String]?, isJSON: Bool)] = []

    init(_ template: String) throws {
        var rest = template[...]
        while let open = rest.firstRange(of: "{{") {
            guard let close = rest[open.upperBound...].firstRange(of: "}}") else {
                throw ValidationError("the template '\(template)' lacks a closing '}}'")
            }
            let words = rest[open.upperBound..<close.lowerBound].split(separator: " ")
            guard let last = words.last, last.hasPrefix("."), words.count == 1 || words.count == 2 && words[0] == "json"
            else {
                throw ValidationError("the template '\(template)' has something else than {{.path.of.fields}}")
            }
            pieces.append(
                (String(rest[..<open.lowerBound]), last.split(separator: ".").map(String.init), words.count == 2))
            rest = rest[close.upperBound...]
        }
        guard !pieces.isEmpty else {
            throw ValidationError("--format takes json or a template such as '{{.status.phase}}', not '\(template)'")
        }
        pieces.append((String(rest), nil, false))
    }

    func text(of object: JSONValue) -> String {
        pieces.map { piece in
            guard let path = piece.path else { return piece.literal }
            var value = object
            for name in path {
                if let next = value[name] {
                    value = next
                } else if let array = value.arrayValue, let index = Int(name), array.indices.contains(index) {
                    value = array[index]
                } else {
                    // Fields without a value are left out of the JSON, so one that is not there may still be meant.
                    value = .null
                }
            }
            if !piece.isJSON, let text = value.stringValue { return piece.literal + text }
            return piece.literal + String(decoding: value.serialized(), as: UTF8.self)
        }.joined()
    }
}
