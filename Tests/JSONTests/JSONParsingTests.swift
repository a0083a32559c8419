import JSON
import Testing

private func parse(_ text: String) throws -> JSONValue { try JSONValue.parse(text) }

private func failure(_ text: String, limits: JSONLimits = .standard) -> JSONError? {
    failure(Array(text.utf8), limits: limits)
}

private func failure(_ bytes: [UInt8], limits: JSONLimits = .standard) -> JSONError? {
    do throws(JSONError) {
        _ = try JSONValue.parse(bytes, limits: limits)
        return nil
    } catch {
        return error
    }
}

@Suite struct JSONParsingTests {
    @Test func everyKindOfValueIsRead() throws {
        let value = try parse(#" {"a": [null, true, false, -1, 2.5, "x"], "b": {}, "c": []} "#)
        #expect(value == ["a": [nil, true, false, -1, 2.5, "x"], "b": [:], "c": []])
        #expect(try parse("7") == 7)
        #expect(try parse("\"\"") == "")
    }

    @Test func membersKeepTheirOrder() throws {
        #expect(try parse(#"{"z":1,"a":2,"m":3}"#).objectValue?.keys == ["z", "a", "m"])
    }

    @Test func integersKeepAll64Bits() throws {
        #expect(try parse("9223372036854775807") == .integer(.max))
        #expect(try parse("-9223372036854775808") == .integer(.min))
        #expect(try parse("9223372036854775808") == .unsigned(9_223_372_036_854_775_808))
        #expect(try parse("18446744073709551615") == .unsigned(.max))
        #expect(try parse("-0") == .integer(0))
        #expect(failure("18446744073709551616")?.kind == .type)
        #expect(failure("-9223372036854775809")?.kind == .type)
        #expect(failure("123456789012345678901234567890")?.kind == .type)
    }

    @Test(arguments: [0.1, -2.5e-3, 1e300, .leastNonzeroMagnitude, 1.7976931348623157e308, 0.30000000000000004])
    func doublesRoundTrip(_ number: Double) throws {
        let text = JSONValue.double(number).serialized()
        #expect(try JSONValue.parse(text) == .double(number))
    }

    @Test func numbersBeyondADoubleAreRefused() {
        #expect(failure("1e999")?.kind == .type)
        #expect(failure("-1e999")?.kind == .type)
        #expect(failure("1" + String(repeating: "0", count: 2000) + ".5")?.kind == .tooLarge)
    }

    @Test(arguments: [
        "", " ", "01", "-", "+1", "1.", ".5", "1e", "1e+", "0x10", "NaN", "Infinity", "-Infinity", "tru", "nul", "True",
        "[", "]", "[1,]", "[,1]", "[1 2]", "{", "}", "{\"a\"}", "{\"a\":}", "{\"a\":1,}", "{,}", "{a:1}", "{1:1}",
        "{\"a\" 1}", "\"", "\"\\\"", "\"\\x\"", "\"\\u12\"", "\"\\u12G4\"", "'a'", "1 2", "[] []", "// c\n1",
        "/* c */ 1", "{\"a\":1}x", "\"\u{01}\"", "\"a\nb\"", "\u{FEFF}1", "[1]]", "\u{00A0}1", "\u{0C}1",
    ])
    func whatIsNotJSONIsRefused(_ text: String) {
        #expect(failure(text)?.kind == .syntax)
    }

    @Test func aDuplicateMemberIsRefusedWithItsPath() {
        let error = failure(#"{"a":{"b":1,"c":2,"b":3}}"#)
        #expect(error?.kind == .syntax)
        #expect(error?.path == "$.a.b")
        let many = (0..<100).map { "\"k\($0)\":\($0)" }.joined(separator: ",")
        #expect(failure("{\(many),\"k57\":0}")?.path == "$.k57")
        #expect(failure("{\(many),\"k100\":0}") == nil)
    }

    @Test func aDuplicateWrittenWithAnEscapeIsFound() {
        #expect(failure(#"{"a":1,"\u0061":2}"#)?.kind == .syntax)
    }

    @Test func escapesAreResolved() throws {
        #expect(try parse(#""\"\\\/\b\f\n\r\t\u0041\u00e9\u20AC\ud83d\ude00""#) == "\"\\/\u{8}\u{c}\n\r\tAé€😀")
        #expect(try parse(#""\u0000""#) == "\0")
    }

    @Test(arguments: [#""\ud83d""#, #""\ude00""#, #""\ud83d\u0041""#, #""\ud83dx""#, #""\ud83d\n""#])
    func halfASurrogatePairIsRefused(_ text: String) {
        #expect(failure(text)?.kind == .invalidUTF8)
    }

    @Test(
        arguments: [
            [0xFF], [0xC0, 0x80], [0xE2, 0x82], [0xED, 0xA0, 0x80], [0xF4, 0x90, 0x80, 0x80], [0x80],
        ] as [[UInt8]])
    func invalidUTF8IsRefused(_ bytes: [UInt8]) {
        #expect(failure([0x22] + bytes + [0x22])?.kind == .invalidUTF8)
        #expect(failure([0x22, 0x5C, 0x6E] + bytes + [0x22])?.kind == .invalidUTF8)
        #expect(failure([0x7B, 0x22] + bytes + Array("\":1}".utf8))?.kind == .invalidUTF8)
    }

    @Test func depthIsBounded() {
        func nested(_ depth: Int) -> String {
            String(repeating: "[", count: depth) + String(repeating: "]", count: depth)
        }
        #expect(failure(nested(64)) == nil)
        #expect(failure(nested(65))?.kind == .tooDeep)
        // An attacker's text does not reach the stack.
        #expect(failure(String(repeating: "{\"a\":", count: 500_000))?.kind == .tooDeep)
        #expect(failure("[[]]", limits: JSONLimits(depth: 1))?.kind == .tooDeep)
    }

    @Test func sizeIsBounded() {
        #expect(failure("[1,2,3]", limits: JSONLimits(bytes: 6))?.kind == .tooLarge)
        #expect(failure("[1,2,3]", limits: JSONLimits(bytes: 7)) == nil)
        #expect(failure("\"12345\"", limits: JSONLimits(stringBytes: 4))?.kind == .tooLarge)
        #expect(failure("\"\\n2345\"", limits: JSONLimits(stringBytes: 4))?.kind == .tooLarge)
    }

    @Test func errorsSayWhereAndWhat() {
        #expect(
            failure("{\n  \"a\": [1, 2,\n  x]\n}")?.description
                == "$.a[2]: expected a value, found 'x' at line 3, column 3")
        #expect(failure("{\"a b\": {\"c\": tru}}")?.path == "$[\"a b\"].c")
        #expect(failure("[1")?.description == "$: expected ',' or ']', found the end of the text")
    }

    @Test func noBytesWhateverStopTheReader() {
        // Every prefix and every one-byte change of a document either is JSON or is refused.
        let document = Array(#"{"a":[1,-2.5e3,"\ud83d\ude00é"],"b":{"c":null,"d":true}}"#.utf8)
        for length in 0..<document.count { #expect(failure(Array(document[..<length])) != nil) }
        var accepted = 0
        for index in document.indices {
            for byte in UInt8.min...UInt8.max {
                var changed = document
                changed[index] = byte
                if let value = try? JSONValue.parse(changed) {
                    accepted += 1
                    #expect((try? JSONValue.parse(value.serialized())) == value)
                }
            }
        }
        #expect(accepted > document.count)
    }
}

@Suite struct JSONSerializingTests {
    @Test func textIsCompactAndEscapesOnlyWhatMustBe() {
        let value: JSONValue = ["b": [1, nil, false], "a": "q\"\\/\n\u{1}é😀\u{7f}", "c": .unsigned(.max)]
        #expect(
            String(decoding: value.serialized(), as: UTF8.self)
                == "{\"b\":[1,null,false],\"a\":\"q\\\"\\\\/\\n\\u0001é😀\u{7f}\",\"c\":18446744073709551615}")
    }

    @Test func prettyTextIsIndentedAndSortable() {
        let value: JSONValue = ["b": [1, 2], "a": [:], "c": []]
        let expected = """
            {
              "a": {},
              "b": [
                1,
                2
              ],
              "c": []
            }
            """
        #expect(String(decoding: value.serialized(pretty: true, sortedKeys: true), as: UTF8.self) == expected)
    }

    @Test func objectsAreEqualInAnyOrder() {
        #expect(["a": 1, "b": 2] as JSONValue == ["b": 2, "a": 1])
        #expect(["a": 1] as JSONValue != ["a": 1, "b": 2])
    }

    @Test func membersCanBeSetAndRemoved() {
        var object = JSONObject()
        for index in 0..<40 { object["k\(index)"] = .integer(Int64(index)) }
        object["k3"] = nil
        object["k39"] = "last"
        #expect(object.count == 39)
        #expect(object["k3"] == nil)
        #expect(object["k4"] == 4)
        #expect(object["k39"] == "last")
        #expect(object.keys.first == "k0")
        for index in 0..<35 { object["k\(index)"] = nil }
        #expect(object.keys == ["k35", "k36", "k37", "k38", "k39"])
        #expect(object["k36"] == 36)
    }
}
