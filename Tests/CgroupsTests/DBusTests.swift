import Cgroups
import Testing

/// The wire format, byte for byte as the D-Bus specification gives it.
@Suite struct DBusTests {
    private func bytes(_ values: DBusValue...) -> [UInt8] {
        var writer = DBusWriter()
        for value in values { writer.put(value) }
        return writer.bytes
    }

    @Test func textsHaveALengthAnEndAndPaddingBetween() {
        // "Marshaling", the three strings of its example.
        #expect(
            bytes(.string("foo"), .string("+"), .string("bar")) == [
                3, 0, 0, 0, 0x66, 0x6f, 0x6f, 0, 1, 0, 0, 0, 0x2b, 0, 0, 0, 3, 0, 0, 0, 0x62, 0x61, 0x72, 0,
            ])
        #expect(bytes(.objectPath("/")) == [1, 0, 0, 0, 0x2f, 0])
        #expect(bytes(.signature("a(sv)")) == [5, 0x61, 0x28, 0x73, 0x76, 0x29, 0])
    }

    @Test func numbersAreAlignedToTheirSize() {
        #expect(bytes(.byte(1), .uint32(0x0102_0304)) == [1, 0, 0, 0, 4, 3, 2, 1])
        #expect(bytes(.byte(1), .uint64(5)) == [1, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0])
        #expect(bytes(.boolean(true), .boolean(false)) == [1, 0, 0, 0, 0, 0, 0, 0])
        #expect(bytes(.int32(-2)) == [0xfe, 0xff, 0xff, 0xff])
        #expect(bytes(.double(1)) == [0, 0, 0, 0, 0, 0, 0xf0, 0x3f])
    }

    @Test func theLengthOfAnArrayLeavesOutThePaddingBeforeItsFirstElement() {
        // The specification's array of one 64-bit 5.
        #expect(bytes(.array(of: "t", [.uint64(5)])) == [8, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0])
        #expect(bytes(.array(of: "t", [])) == [0, 0, 0, 0, 0, 0, 0, 0], "padded though it is empty")
        #expect(bytes(.array(of: "y", [.byte(7), .byte(2)])) == [2, 0, 0, 0, 7, 2])
    }

    @Test func variantsSayTheirType() {
        // The specification's variant of a byte 5, and one that needs padding.
        #expect(bytes(.variant(.byte(5))) == [1, 0x79, 0, 5])
        #expect(bytes(.variant(.uint32(5))) == [1, 0x75, 0, 0, 5, 0, 0, 0])
        #expect(
            bytes(.structure([.string("A"), .variant(.boolean(true))])) == [
                1, 0, 0, 0, 0x41, 0, 1, 0x62, 0, 0, 0, 0, 1, 0, 0, 0,
            ])
    }

    @Test func aCallIsAHeaderWithFieldsAndABody() {
        let ping = DBusMessage(.call, serial: 1, path: "/", member: "Ping")
        #expect(
            ping.encoded() == [
                0x6c, 1, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0x1d, 0, 0, 0,  // 29 bytes of fields
                1, 1, 0x6f, 0, 1, 0, 0, 0, 0x2f, 0, 0, 0, 0, 0, 0, 0,  // the path
                3, 1, 0x73, 0, 4, 0, 0, 0, 0x50, 0x69, 0x6e, 0x67, 0, 0, 0, 0,  // the member
            ])
    }

    private static let message = DBusMessage(
        .signal, serial: 9, path: "/a/b", interface: "x.y", member: "M", errorName: "e.f", replySerial: 3,
        destination: "d.e",
        body: [
            .uint32(7), .objectPath("/job/7"), .string("ä"), .boolean(true),
            .array(
                of: "(sv)",
                [
                    .structure([.string("k"), .variant(.array(of: "y", [.byte(1)]))]),
                    .structure([.string("l"), .variant(.double(2.5))]),
                ]),
            .variant(.variant(.int64(-5))), .array(of: "as", [.array(of: "s", [])]), .int32(-1), .uint64(.max),
            .signature("u"),
        ])

    @Test func whatIsWrittenIsReadAgain() throws {
        var input = Self.message.encoded() + Self.message.encoded()
        #expect(try DBusMessage.take(from: &input) == Self.message)
        #expect(try DBusMessage.take(from: &input) == Self.message)
        #expect(input.isEmpty)
    }

    @Test func theOtherByteOrderIsReadToo() throws {
        // A reply to call 2 with the specification's array of one 64-bit 5.
        var input: [UInt8] = [
            0x42, 2, 0, 1, 0, 0, 0, 16, 0, 0, 0, 8, 0, 0, 0, 16, 5, 1, 0x75, 0, 0, 0, 0, 2, 8, 1, 0x67, 0, 2, 0x61,
            0x74,
            0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5,
        ]
        let message = try #require(try DBusMessage.take(from: &input))
        #expect(message.replySerial == 2)
        #expect(message.serial == 8)
        #expect(message.body == [.array(of: "t", [.uint64(5)])])
    }

    @Test func aMessageThatHasNotComeWholeIsWaitedFor() throws {
        let whole = Self.message.encoded()
        for count in 0..<whole.count {
            var input = Array(whole[..<count])
            #expect(try DBusMessage.take(from: &input) == nil)
            #expect(input.count == count)
        }
    }

    @Test func noByteOfAMessageCanDoHarm() {
        let whole = Self.message.encoded()
        var refused = 0
        for place in whole.indices {
            for value: UInt8 in [0, 1, 0x28, 0x61, 0x76, 0x7f, 0xff] {
                var input = whole
                input[place] = value
                do {
                    _ = try DBusMessage.take(from: &input)
                } catch {
                    refused += 1
                }
            }
        }
        #expect(refused > 0)
    }

    @Test(
        arguments: [
            [0x6d, 1, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0], [0x6c, 1, 0, 2, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0],
            [0x6c, 1, 0, 1, 0xff, 0xff, 0xff, 0xff, 1, 0, 0, 0, 0, 0, 0, 0],
            [0x6c, 1, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0x7f],
        ] as [[UInt8]])
    func whatIsNoMessageOrATooLargeOneIsRefusedAtOnce(head: [UInt8]) {
        var input = head
        #expect(throws: DBusFault.self) { try DBusMessage.take(from: &input) }
    }
}
