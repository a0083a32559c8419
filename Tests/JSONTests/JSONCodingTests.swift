import JSON
import Testing

private struct Port: Codable, Equatable {
    var container: UInt16
    var host: UInt16?
}

private struct Spec: Codable, Equatable {
    var name: String
    var ports: [Port] = []
    var labels: [String: String] = [:]
    var memory: Int64?
    var restart: Restart = .never
    var extra: JSONValue?
    var created: Timestamp?
}

private enum Restart: Codable, Equatable {
    case never
    case onFailure(limit: Int)

    private enum CodingKeys: String, CodingKey { case policy, limit }

    init(from decoder: any Decoder) throws {
        let container = try decoder.container(keyedBy: CodingKeys.self)
        switch try container.decode(String.self, forKey: .policy) {
        case "never": self = .never
        case "onFailure": self = .onFailure(limit: try container.decode(Int.self, forKey: .limit))
        case let other:
            throw DecodingError.dataCorruptedError(
                forKey: .policy, in: container, debugDescription: "\(other) is no restart policy")
        }
    }

    func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: CodingKeys.self)
        switch self {
        case .never: try container.encode("never", forKey: .policy)
        case .onFailure(let limit):
            try container.encode("onFailure", forKey: .policy)
            try container.encode(limit, forKey: .limit)
        }
    }
}

private enum Shape: Codable, Equatable {
    case circle(radius: Double)
    case point
}

private class Base: Codable {
    var id: Int
    init(id: Int) { self.id = id }
}

private final class Derived: Base {
    var name: String
    private enum CodingKeys: String, CodingKey { case name }
    init(id: Int, name: String) {
        self.name = name
        super.init(id: id)
    }
    required init(from decoder: any Decoder) throws {
        let container = try decoder.container(keyedBy: CodingKeys.self)
        name = try container.decode(String.self, forKey: .name)
        try super.init(from: container.superDecoder())
    }
    override func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: CodingKeys.self)
        try container.encode(name, forKey: .name)
        try super.encode(to: container.superEncoder())
    }
}

/// Two halves of one object, as flattened types are written.
private struct Halves: Decodable {
    struct Left: Decodable { var a: Int }
    struct Right: Decodable { var b: Int }
    let left: Left
    let right: Right
    init(from decoder: any Decoder) throws {
        left = try Left(from: decoder)
        right = try Right(from: decoder)
    }
}

/// One of two types, by trial.
private struct Either: Decodable {
    let number: Int?
    let port: Port?
    private enum CodingKeys: String, CodingKey { case value }
    init(from decoder: any Decoder) throws {
        let container = try decoder.container(keyedBy: CodingKeys.self)
        number = try? container.decode(Int.self, forKey: .value)
        port = number == nil ? try container.decode(Port.self, forKey: .value) : nil
    }
}

private func decode<T: Decodable>(_ type: T.Type, _ text: String, strict: Bool = true) throws -> T {
    try JSONCoding.decode(type, from: Array(text.utf8), strict: strict)
}

private func text(_ value: some Encodable) throws -> String {
    String(decoding: try JSONCoding.encode(value), as: UTF8.self)
}

private func failure<T: Decodable>(_ type: T.Type, _ text: String, strict: Bool = true) -> JSONError? {
    #expect(throws: JSONError.self) { try decode(type, text, strict: strict) }
}

@Suite struct JSONCodingTests {
    @Test func aValueSurvivesTheRoundTrip() throws {
        let spec = Spec(
            name: "web", ports: [Port(container: 80, host: 8080), Port(container: 443)], labels: ["a": "1", "b": "2"],
            memory: 1 << 40, restart: .onFailure(limit: 3), extra: ["x": [1, nil]],
            created: Timestamp(nanoseconds: 1_700_000_000_123_456_789))
        let bytes = try JSONCoding.encode(spec, pretty: true)
        #expect(try JSONCoding.decode(Spec.self, from: bytes, strict: true) == spec)
    }

    @Test func absentOptionalsAreOmitted() throws {
        #expect(try text(Port(container: 80)) == #"{"container":80}"#)
        #expect(try decode(Port.self, #"{"container":80,"host":null}"#) == Port(container: 80))
    }

    @Test func errorsArePlainSentencesWithAPath() {
        let base = #""name":"x","labels":{},"restart":{"policy":"never"}"#
        #expect(
            failure(Spec.self, #"{\#(base),"ports":[{"container":"80"}]}"#)?.description
                == "$.ports[0].container: expected an integer, found a string")
        #expect(
            failure(Spec.self, #"{\#(base),"ports":[{"container":65536}]}"#)?.description
                == "$.ports[0].container: the integer is out of range, 0 to 65535 are allowed")
        #expect(
            failure(Spec.self, #"{\#(base),"ports":[{}]}"#)?.description
                == "$.ports[0].container: the member is missing")
        #expect(
            failure(Spec.self, #"{\#(base),"ports":7}"#)?.description == "$.ports: expected an array, found an integer")
        #expect(
            failure(Spec.self, #"{\#(base),"ports":[],"created":"yesterday"}"#)?.description
                == "$.created: expected a time such as 2026-01-31T08:15:30Z (RFC 3339)")
        #expect(
            failure(Restart.self, #"{"policy":"maybe"}"#)?.description == "$.policy: maybe is no restart policy")
    }

    @Test func strictDecodingNamesTheUnknownField() throws {
        let base = #""name":"x","labels":{"any":"thing"},"restart":{"policy":"never"}"#
        #expect(
            failure(Spec.self, #"{\#(base),"ports":[],"memroy":5}"#)?.description == "$.memroy: the field is not known")
        let nested = failure(Spec.self, #"{\#(base),"ports":[{"container":1,"hots":2}]}"#)
        #expect(nested?.kind == .unknownField)
        #expect(nested?.path == "$.ports[0].hots")
        // Not strict: newer writers may say more than we know.
        #expect(try decode(Spec.self, #"{\#(base),"ports":[],"memroy":5}"#, strict: false).name == "x")
    }

    @Test func whatADictionaryOrARawValueHoldsIsKnown() throws {
        let base = #""name":"x","ports":[],"restart":{"policy":"never"}"#
        let spec = try decode(Spec.self, #"{\#(base),"labels":{"p":"q"},"extra":{"any":{"deep":[{"z":1}]}}}"#)
        #expect(spec.extra?["any"]?["deep"] == [["z": 1]])
        #expect(
            failure([String: Port].self, #"{"a":{"container":1,"x":1}}"#)?.path == "$.a.x")
    }

    @Test func severalContainersOverOneObjectCountTogether() throws {
        let halves = try decode(Halves.self, #"{"a":1,"b":2}"#)
        #expect(halves.left.a == 1 && halves.right.b == 2)
        #expect(failure(Halves.self, #"{"a":1,"b":2,"c":3}"#)?.path == "$.c")
        #expect(try decode(Either.self, #"{"value":{"container":9}}"#).port?.container == 9)
        #expect(failure(Either.self, #"{"value":{"container":9,"y":0}}"#)?.path == "$.value.y")
    }

    @Test func synthesizedEnumsWork() throws {
        #expect(
            try decode([Shape].self, try text([Shape.circle(radius: 1.5), .point])) == [.circle(radius: 1.5), .point])
        #expect(failure(Shape.self, #"{"circle":{"radius":1,"x":2}}"#)?.path == "$.circle.x")
        #expect(failure(Shape.self, #"{"square":{}}"#) != nil)
    }

    @Test func subclassesWork() throws {
        let derived = try decode(Derived.self, try text(Derived(id: 7, name: "n")))
        #expect(derived.id == 7 && derived.name == "n")
    }

    @Test func integersOfAllWidthsKeepTheirRange() throws {
        #expect(try decode([UInt64].self, try text([UInt64.max, 0])) == [.max, 0])
        #expect(try decode([Int64].self, try text([Int64.max, .min])) == [.max, .min])
        #expect(try decode([Int8].self, "[-128,127]") == [-128, 127])
        #expect(failure([Int8].self, "[128]")?.path == "$[0]")
        #expect(failure([UInt].self, "[0,-1]")?.path == "$[1]")
        #expect(failure([Int64].self, "[9223372036854775808]")?.kind == .type)
        #expect(try decode([Int].self, "[2.0,1e3]") == [2, 1000])
        #expect(failure([Int].self, "[2.5]")?.description == "$[0]: expected an integer, found a number")
    }

    @Test func doublesAcceptIntegersAndMustBeFinite() throws {
        #expect(try decode([Double].self, "[1,2.5,18446744073709551615]") == [1, 2.5, 0x1p64])
        #expect(try text([Float(0.1)]) == "[0.1]")
        #expect(throws: JSONError.self) { try JSONCoding.encode(["a": Double.infinity]) }
    }

    @Test func topLevelScalarsAndNestedArraysWork() throws {
        #expect(try decode(String.self, "\"x\"") == "x")
        #expect(try decode(Bool.self, "true"))
        #expect(try decode(Int?.self, "null") == nil)
        #expect(try decode([[Int?]].self, "[[1,null],[]]") == [[1, nil], []])
        #expect(try text([[1], []] as [[Int]]) == "[[1],[]]")
        #expect(try text([String: Int]()) == "{}")
    }

    @Test func sizeLimitsHoldForCodableToo() {
        #expect(throws: JSONError.self) {
            try JSONCoding.decode([Int].self, from: Array("[1,2,3]".utf8), limits: JSONLimits(bytes: 3))
        }
    }
}
