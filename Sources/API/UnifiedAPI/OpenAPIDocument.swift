import HTTPTypes
import JSON
import Model

/// The API as an OpenAPI 3.1 document, made from the table of operations and from the types themselves.
struct OpenAPIDocument {
    let json: JSONValue

    /// - Throws: `SchemaError` for a type whose form cannot be read off it.
    init(operations: [Operation], version: String) throws {
        let book = SchemaBook()
        var paths = JSONObject()
        for operation in operations {
            var item = paths[operation.path]?.objectValue ?? JSONObject()
            item[operation.method.rawValue.lowercased()] = try Self.describe(operation, book)
            paths[operation.path] = .object(item)
        }
        var schemas = JSONObject()
        for (name, schema) in book.components.sorted(by: { $0.key < $1.key }) { schemas[name] = schema }
        schemas["Error"] = Self.error
        json = .object([
            "openapi": "3.1.0",
            "info": ["title": "Martlet unified API", "version": .string(version)],
            "paths": .object(paths),
            "components": ["schemas": .object(schemas)],
        ])
    }

    private static let error: JSONValue = [
        "type": "object", "required": ["error"],
        "properties": [
            "error": [
                "type": "object", "required": ["code", "message"],
                "properties": ["code": ["type": "string"], "message": ["type": "string"]],
            ]
        ],
    ]

    private static func describe(_ operation: Operation, _ book: SchemaBook) throws -> JSONValue {
        var parameters = operation.path.split(separator: "/").filter { $0.hasPrefix("{") }.map { segment -> JSONValue in
            [
                "name": .string(String(segment.dropFirst().dropLast())), "in": "path", "required": true,
                "schema": ["type": "string"],
            ]
        }
        parameters += operation.query.map(describe)
        var result: JSONObject = [
            "summary": .string(operation.summary), "x-martlet-access": .string(operation.access.rawValue),
            "tags": [.string(operation.subject)],
            "parameters": .array(parameters), "responses": .object(try responses(operation, book)),
        ]
        if let content = try content(operation.body, book) {
            var required = true
            if case .optionalJSON = operation.body { required = false }
            result["requestBody"] = ["required": .bool(required), "content": content]
        }
        return .object(result)
    }

    private static func describe(_ parameter: Operation.Parameter) -> JSONValue {
        let schema: JSONValue =
            switch parameter.kind {
            case .flag: ["type": "boolean"]
            case .text: ["type": "string"]
            case .integer: ["type": "integer"]
            case .list: ["type": "array", "items": ["type": "string"]]
            }
        return [
            "name": .string(parameter.name), "in": "query", "required": false,
            "description": .string(parameter.summary), "schema": schema,
        ]
    }

    private static func responses(_ operation: Operation, _ book: SchemaBook) throws -> JSONObject {
        var responses = JSONObject()
        let all = Set(operation.statuses + [400, 500, 503]).sorted()
        for status in all {
            var response: JSONObject = [
                "description": .string(HTTPResponse.Status(code: status).reasonPhrase)
            ]
            if status >= 400 {
                response["content"] = ["application/json": ["schema": ["$ref": "#/components/schemas/Error"]]]
            } else if (200...201).contains(status), let content = try content(operation.answer, book) {
                response["content"] = content
            }
            responses["\(status)"] = .object(response)
        }
        return responses
    }

    private static func content(_ content: Operation.Content, _ book: SchemaBook) throws -> JSONValue? {
        switch content {
        case .none, .frames: return nil
        case .json(let type), .optionalJSON(let type):
            return ["application/json": ["schema": try book.schema(of: type)]]
        case .lines(let type): return ["application/x-ndjson": ["schema": try book.schema(of: type)]]
        case .bytes(let media): return .object([media: ["schema": ["type": "string", "format": "binary"]]])
        }
    }
}
