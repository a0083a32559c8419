import JSON
import Testing

@Suite struct Base64Tests {
    /// RFC 4648, section 10.
    @Test(arguments: [
        ("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("fooba", "Zm9vYmE="),
        ("foobar", "Zm9vYmFy"),
    ])
    func vectors(_ plain: String, _ coded: String) {
        #expect(Base64.encode(Array(plain.utf8)) == coded)
        #expect(Base64.decode(coded) == Array(plain.utf8))
    }

    @Test func everyByteComesBack() {
        let bytes = (0..<1024).map { UInt8(truncatingIfNeeded: $0 &* 7) }
        for length in 0..<bytes.count {
            #expect(Base64.decode(Base64.encode(Array(bytes[..<length]))) == Array(bytes[..<length]))
        }
        #expect(Base64.encode([0xFB, 0xFF, 0xBF]) == "+/+/")
    }

    @Test(arguments: [
        "Z", "Zg", "Zg=", "Zg===", "Z===", "====", "Zh==", "Zm9=", "Z=g=", "Zm9v\n", "Zm 9", "Zm-_", "Zm9vé",
    ])
    func refusesEverySpellingButTheOne(_ text: String) {
        #expect(Base64.decode(text) == nil)
    }
}
