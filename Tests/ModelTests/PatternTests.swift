import Testing

@testable import Model

@Suite struct Patterns {
    @Test(arguments: [
        ("web", "web", true), ("web", "web1", false), ("web*", "web1", true), ("web*", "aweb", false),
        ("*", "", true), ("a*b*c", "a-b-c", true), ("a*b*c", "acb", false), ("*.internal", "n1.internal", true),
        ("a*a", "a", false), ("a.b", "axb", false), ("", "", true), ("**x", "yx", true),
    ])
    func globsAreForTheWholeValue(pattern: String, value: String, matches: Bool) throws {
        #expect(try Pattern(pattern).matches(value) == matches)
    }

    @Test(arguments: [
        ("node[12]", "node1", true), ("node[12]", "node3", false), ("node\\d", "my-node7-x", true),
        ("^node\\d$", "node77", false), ("(?i)node1", "NODE1", true), ("foo\\[bar\\]", "foo[bar]", true),
        ("^(a|b|)$", "", true), ("^(a|bc)+$", "abcbca", true), ("^(a|bc)+$", "abcb", false),
        ("^a{2,3}$", "aa", true), ("^a{2,3}$", "aaaa", false), ("^a{2}$", "aa", true), ("^a{2,}$", "aaaaa", true),
        ("^a{,2}$", "a{,2}", true), ("^[^a-c]+$", "xyz", true), ("^[^a-c]+$", "xbz", false), ("^[]x]$", "]", true),
        ("^[\\d-]+$", "1-2", true), ("\\bus\\b", "eu us ap", true), ("\\bus\\b", "bus", false), ("^.$", "\n", false),
        ("^\\w+\\s\\W$", "ab_9 !", true), ("^(?:x(?i:y)z)$", "xYz", true), ("^(?:x(?i:y)z)$", "xYZ", false),
        ("^(a(?i)b)c$", "aBC", false), ("^a??b*?$", "abb", true), ("\\x41", "A", true), ("^[\\D]$", "x", true),
        ("(a*)*b", "aab", true), ("^ü$", "ü", true), ("(?i)^É$", "é", true), ("", "anything", true),
    ])
    func expressionsAreLookedForAnywhere(expression: String, value: String, matches: Bool) throws {
        #expect(try Pattern("/\(expression)/").matches(value) == matches)
        let table = ExpressionTable(try RegularExpression(expression))
        #expect((table == nil) == expression.contains("\\b"))
        if let table { #expect(table.matches(value) == matches) }
    }

    @Test func aTableSaysWhatItsExpressionSays() throws {
        let texts = ["", "a", "b", "ab", "ba", "aab", "abab", "/a", "a/", "web-1", "web-12x", "ü", "aü", "A-B"]
        for text in [
            "^a", "a$", "^$", "^(a|b)+$", "b+", "^/?a", "[^a]", "a.b", "-[0-9]+$", "(?i)^a-b$", "$", "^(a?b)*$",
        ] {
            let expression = try RegularExpression(text)
            let table = try #require(ExpressionTable(expression))
            for value in texts {
                #expect(table.matches(value) == expression.matches(value), "\(text) in \(value)")
                #expect(
                    table.matches(value, after: UInt8(ascii: "/")) == expression.matches("/" + value),
                    "\(text) in /\(value)")
            }
        }
        // So many ways are not worked out in advance.
        #expect(ExpressionTable(try RegularExpression("(a|b)*a(a|b){9}c")) == nil)
    }

    @Test(arguments: [
        ("(", "not closed"), (")", "closes nothing"), ("[a", "not closed"), ("*", "nothing stands before"),
        ("a**", "one repetition follows another"), ("(a)\\1", "'\\1' is not supported"), ("(?=a)", "not supported"),
        ("(?P<n>a)", "not supported"), ("[[:alpha:]]", "not supported"), ("\\pL", "not supported"),
        ("[z-a]", "wrong way round"), ("a{3,2}", "no repetition"), ("a{1001}", "no repetition"), ("a\\", "ends with"),
        ("a{1000}", "too large"), ("((((x{99}){99}){99}){99})", "too large"), ("((((){99}){99}){99}){99}", "too large"),
        (String(repeating: "(", count: 40) + String(repeating: ")", count: 40), "nested"),
        (String(repeating: "a", count: 600), "more than"),
    ])
    func whatIsNotUnderstoodIsRefusedByName(expression: String, why: String) {
        #expect(performing: { try RegularExpression(expression) }, throws: { "\($0)".contains(why) })
    }

    /// Ways through it are many more than there are steps: trying them one by one would not end.
    @Test func whatRepeatsRepetitionsEnds() throws {
        let expression = try RegularExpression("^(a|a|aa|(a+)+)*$")
        let text = String(repeating: "a", count: RegularExpression.longestValue - 1)
        #expect(expression.matches(text))
        #expect(!expression.matches(text + "b"))
        #expect(!expression.matches(text + "aa"))
    }
}

@Suite struct Constraints {
    @Test(
        arguments: [
            ("zone==b", "b", true), ("zone==b", nil, false), ("zone!=b", nil, true), ("zone!=b*", "bc", false),
            ("zone==~/^b/", "bc", true), ("zone != ~c", "b", true),
        ] as [(String, String?, Bool)])
    func whatIsMissingEqualsNothing(text: String, value: String?, holds: Bool) throws {
        #expect(try #require(Constraint(text)).matches(value) == holds)
    }

    @Test(arguments: ["zone==b", "zone!=b", "zone==~b*", "zone!=~/a==b/"]) func theyAreWrittenAsRead(text: String)
        throws
    {
        #expect("\(try #require(Constraint(text)))" == text)
    }

    @Test(arguments: ["", "zone", "zone=b", "==b", "zone===b"]) func otherTextIsNone(text: String) {
        #expect(Constraint(text) == nil)
    }
}
