import Client
import HTTPService
import JSON
import Kernel
import Master
import NIOHTTP1
import Testing
import Wire

@testable import UnifiedAPI

@Suite struct TheDocument {
    @Test func describesEveryRouteAndNothingElse() async throws {
        try await withMaster { client, _ in
            let document = try JSONValue.parse(try await client.request(.GET, APIPaths.openAPI).checked().bytes())
            #expect(document["openapi"]?.stringValue == "3.1.0")
            let paths = try #require(document["paths"]?.objectValue)
            #expect(paths.keys.contains("/api/v1/containers/{container}/exec"))
            for member in paths.members {
                for method in member.value.objectValue?.keys ?? [] {
                    // A route that is not served says "there is no GET /…"; one that is says something about its object.
                    let path = member.key.replacing("{", with: "x").replacing("}", with: "x")
                    let response = try await client.request(HTTPMethod(rawValue: method.uppercased()), path)
                    let text = String(decoding: try await response.bytes(), as: UTF8.self)
                    #expect(response.status != 405, "\(method) \(path)")
                    #expect(!text.contains("there is no \(method.uppercased()) /"), "\(method) \(path)")
                }
            }
        }
    }

    @Test func everyReferenceHasItsSchema() async throws {
        try await withMaster { client, _ in
            let bytes = try await client.request(.GET, APIPaths.openAPI).checked().bytes()
            let document = try JSONValue.parse(bytes)
            let schemas = Set(document["components"]?["schemas"]?.objectValue?.keys ?? [])
            let text = String(decoding: bytes, as: UTF8.self)
            for piece in text.split(separator: "#/components/schemas/").dropFirst() {
                let name = String(piece.prefix { $0 != "\"" })
                #expect(schemas.contains(name), "\(name)")
            }
            #expect(schemas.isSuperset(of: ["ContainerView", "CreateContainer", "PodSpec", "Error"]))
        }
    }

    @Test func schemasAreReadOffTheTypes() throws {
        let book = SchemaBook()
        _ = try book.schema(of: CreateContainer.self)
        let create = try #require(book.components["CreateContainer"])
        #expect(create["required"] == ["pod"])
        #expect(create["properties"]?["start"] == ["type": "boolean"])
        #expect(create["properties"]?["labels"] == ["type": "object", "additionalProperties": ["type": "string"]])
        let container = try #require(book.components["ContainerSpec"])
        #expect(container["required"] == ["image"])
        #expect(container["properties"]?["mounts"]?["items"] == ["$ref": "#/components/schemas/Mount"])
        #expect(
            book.components["PodSpec"]?["properties"]?["network"]?["enum"] == [
                "bridge", "host", "none", "attached", "container",
            ])
    }
}

@Suite struct TheManual {
    @Test func namesEveryRoute() async throws {
        let folder = #filePath.split(separator: "/").dropLast(3).joined(separator: "/")
        let manual = try File.text("/\(folder)/docs/api.md")
        try await withMaster { client, _ in
            let document = try JSONValue.parse(try await client.request(.GET, APIPaths.openAPI).checked().bytes())
            for member in document["paths"]?.objectValue?.members ?? [] {
                for method in member.value.objectValue?.keys ?? [] {
                    #expect(manual.contains("`\(method.uppercased()) \(member.key)`"), "\(method) \(member.key)")
                }
            }
        }
    }
}
