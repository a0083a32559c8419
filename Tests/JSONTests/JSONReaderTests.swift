import JSON
import Testing

private enum Mode: String, CaseIterable {
    case fast, slow
}

@Suite struct JSONReaderTests {
    private func reader(_ text: String) throws -> JSONReader { JSONReader(try JSONValue.parse(text)) }

    private func message<T>(_ body: () throws -> T) -> String {
        do {
            _ = try body()
            return "no error"
        } catch {
            return "\(error)"
        }
    }

    @Test func membersAreReadByType() throws {
        let root = try reader(
            #"{"s":"x","i":-3,"u":18446744073709551615,"d":2,"b":true,"n":null,"l":["a","b"],"m":{"k":"v"},"e":"slow"}"#
        )
        #expect(try root.string("s") == "x")
        #expect(try root.int64("i") == -3)
        #expect(try root.uint64("u") == .max)
        #expect(try root.double("d") == 2)
        #expect(try root.bool("b"))
        #expect(try root.optionalString("n") == nil)
        #expect(try root.optionalString("absent") == nil)
        #expect(try root.strings("l") == ["a", "b"])
        #expect(try root.stringMap("m") == ["k": "v"])
        #expect(try root.choice("e", as: Mode.self) == .slow)
    }

    @Test func errorsNameTheFullPath() throws {
        let root = try reader(#"{"containers":[{"memory":"1g","args":["a",7],"mode":"warp","port":70000}]}"#)
        let first = try root.array("containers")[0]
        #expect(
            message { try first.int64("memory") }
                == "$.containers[0].memory: expected an integer, found a string")
        #expect(message { try first.strings("args") } == "$.containers[0].args[1]: expected a string, found an integer")
        #expect(message { try first.string("image") } == "$.containers[0].image: the member is missing")
        #expect(
            message { try first.choice("mode", as: Mode.self) }
                == "$.containers[0].mode: \"warp\" is not one of fast, slow")
        #expect(
            message { try first.integer("port", as: UInt16.self) }
                == "$.containers[0].port: the integer is out of range, 0 to 65535 are allowed")
        #expect(message { try root.object("containers") } == "$.containers: expected an object, found an array")
    }

    @Test func unknownMembersAreNamed() throws {
        let root = try reader(#"{"a":{"known":1,"typo":2}}"#)
        let inner = try root.object("a")
        #expect(message { try inner.rejectUnknown(known: ["known"]) } == "$.a.typo: the member is not known")
        #expect(message { try inner.rejectUnknown(known: ["known", "typo"]) } == "no error")
    }

    @Test func aNULInAStringIsRefused() throws {
        // It would end a C string early: a check would see another path than the kernel.
        let root = try reader(#"{"path":"/safe\u0000/../etc"}"#)
        #expect(message { try root.string("path") } == "$.path: a NUL character is not allowed here")
    }

    @Test func absentArraysAreEmptyToLoops() throws {
        let root = try reader(#"{"l":[1,2,3]}"#)
        var sum: Int64 = 0
        try root.forEach("l") { (element) throws(JSONError) in sum += try element.integer(as: Int64.self) }
        try root.forEach("absent") { (_) throws(JSONError) in sum = 0 }
        #expect(sum == 6)
        #expect(try root.map("l") { (element) throws(JSONError) in try element.integer(as: Int.self) } == [1, 2, 3])
    }

    @Test func aMembersNameInAnErrorIsNoCommandToATerminal() {
        #expect(JSONPathElement.quoted("a\u{7f}\u{9b}31m\u{e9}\n") == "\"a\\u007f\\u009b31m\u{e9}\\n\"")
    }
}
