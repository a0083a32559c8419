import Testing

@testable import Images

/// gzip's check sum, against values of RFC 1952's own function and of other implementations.
@Suite struct CyclicRedundancyCheckTests {
    @Test(arguments: [
        ("", 0), ("a", 0xe8b7_be43), ("123456789", 0xcbf4_3926),
        ("The quick brown fox jumps over the lazy dog", 0x414f_a339),
    ])
    func hasTheKnownValue(text: String, value: UInt32) {
        for cut in 0...text.utf8.count {
            var check = CyclicRedundancyCheck()
            Array(text.utf8.prefix(cut)).withUnsafeBytes { check.update($0) }
            Array(text.utf8.dropFirst(cut)).withUnsafeBytes { check.update($0) }
            #expect(check.value == value && check.count == UInt64(text.utf8.count))
        }
    }
}
