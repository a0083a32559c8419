import JSON
import Testing

@testable import YAML

@Suite struct YAMLTests {
    private func parse(_ text: String, isText: Bool = false) throws -> JSONValue {
        try YAML.parse(Array(text.utf8)) { _ in isText }
    }

    @Test func `mappings, sequences and scalars become values`() throws {
        let value = try parse(
            """
            ---
            # a comment
            name: "x"   # another
            list:
            - 1
            - -2
            - true
            - ~
            - 'it''s'
            - !!str 5
            folded: >-
              two
              lines
            flow: {a: [b, "c"], d: }
            """)
        #expect(
            value == [
                "name": "x", "list": [1, -2, true, nil, "it's", "5"], "folded": "two lines",
                "flow": ["a": ["b", "c"], "d": nil],
            ])
        #expect(try parse(#"{"a": ["\u00e9", 18446744073709551615]}"#) == ["a": ["é", .unsigned(.max)]])
    }

    @Test func `an anchor's value is that of its aliases`() throws {
        #expect(
            try parse("a: &x {b: [1]}\nc: *x\nd: &x 2\ne: *x") == ["a": ["b": [1]], "c": ["b": [1]], "d": 2, "e": 2])
    }

    @Test(
        arguments: [
            ("0660", 432), ("0o17", 15), ("0x1F", 31), ("0", 0), ("-7", -7), ("+7", 7), ("9223372036854775807", .max),
        ] as [(String, Int64)])
    func `an integer is read in the forms of both versions`(text: String, number: Int64) throws {
        #expect(try parse("a: \(text)") == ["a": .integer(number)])
    }

    @Test(
        arguments: [
            ("12", "12"), ("-5", "-5"), ("true", "true"), ("A=yes", "A=yes"), ("0.5.0", "0.5.0"), ("\"0.5\"", "0.5"),
            ("/dev/x", "/dev/x"), ("10.1.2.3", "10.1.2.3"), ("'yes'", "yes"), ("0:x", "0:x"), ("e5", "e5"), ("-", nil),
        ] as [(String, String?)])
    func `where text is wanted plain words are text`(word: String, text: String?) throws {
        if let text { #expect(try parse("a: \(word)", isText: true) == ["a": .string(text)]) }
    }

    @Test(arguments: [
        "yes", "Off", "010", "0x10", "1.0", "1e3", "1_000", "1:30", "True", "+5", ".inf", "0b1", "08",
    ])
    func `where text is wanted a word that can be read as another is refused`(word: String) throws {
        let error = #expect(throws: JSONError.self) { try parse("a: \(word)", isText: true) }
        #expect(error?.description.hasPrefix("$.a: versions of YAML read \"\(word)\" differently: put it into") == true)
    }

    @Test(arguments: [
        ("", "$: there is no document"), ("# nothing", "$: there is no document"),
        ("a: 1\n---\nb: 2", "$: there is a second document"),
        ("a: [1", "$.a: no YAML at line 2"), ("a: b\n\tc: d", "$.a: no YAML at line 2"),
        ("a: b: c", "$: no YAML at line 1"),
        ("a: 1\na: 2", "$.a: the member is there twice"), ("? [1]\n: 2", "$: a key is not plain text"),
        ("a: *x", "$.a: the alias *\"x\" has no anchor before it"), ("a: &x [*x]", "$.a[0]: the alias"),
        ("<<: {a: 1}", "$: merge keys (<<) are not read"), ("a: !!int \"5\"", "$.a: the tag"),
        ("a: !mine {}", "$.a: the tag"), ("a: 1.5", "$.a: versions of YAML read"), ("a: \u{1}", "$"),
        (String(repeating: "[", count: 100), "$[0]"),
    ])
    func `what is no YAML, or more of it than is read here, is refused with its place`(text: String, error: String)
        throws
    {
        let thrown = #expect(throws: JSONError.self) { try parse(text) }
        let words = try #require(thrown?.description)
        #expect(words.hasPrefix(error) && !words.utf8.contains { $0 < 32 }, "\(words)")
    }

    @Test func `bytes, levels, texts and values are bounded, what aliases stand for too`() throws {
        func kind(_ text: String, _ limits: YAMLLimits) -> JSONError.Kind? {
            do throws(JSONError) {
                _ = try YAML.parse(Array(text.utf8), limits: limits)
                return nil
            } catch {
                return error.kind
            }
        }
        #expect(kind("a: 12345", YAMLLimits(json: JSONLimits(bytes: 7))) == .tooLarge)
        #expect(kind("[[1]]", YAMLLimits(json: JSONLimits(depth: 2))) == nil)
        #expect(kind("[[[1]]]", YAMLLimits(json: JSONLimits(depth: 2))) == .tooDeep)
        #expect(kind("a: 12345", YAMLLimits(json: JSONLimits(stringBytes: 4))) == .tooLarge)
        #expect(kind("[1, 2]", YAMLLimits(values: 3)) == nil && kind("[1, 2, 3]", YAMLLimits(values: 3)) == .tooLarge)
        let laughs = (1..<12).map { "x\($0): &x\($0) [\(String(repeating: "*x\($0 - 1), ", count: 9))1]" }
        #expect(kind("x0: &x0 [1]\n" + laughs.joined(separator: "\n"), YAMLLimits()) == .tooLarge)
    }
}
