import CNetlink
import Glibc
import Kernel
import Testing

@testable import Netlink

/// The same numbers in every run.
private struct Xorshift: RandomNumberGenerator {
    private var state: UInt64 = 0x9e37_79b9_7f4a_7c15

    mutating func next() -> UInt64 {
        state ^= state << 13
        state ^= state >> 7
        state ^= state << 17
        return state
    }
}

/// Answers as the kernel sends them, taken apart; no kernel is asked.
@Suite struct NetlinkReplyTests {
    private func number<T: FixedWidthInteger>(_ value: T) -> [UInt8] {
        withUnsafeBytes(of: value) { Array($0) }
    }

    private func message(type: UInt16, flags: UInt16 = 0, sequence: UInt32 = 7, _ payload: [UInt8]) -> [UInt8] {
        let bytes =
            number(UInt32(16 + payload.count)) + number(type) + number(flags) + number(sequence) + number(UInt32(0))
        return bytes + payload + [UInt8](repeating: 0, count: -payload.count & 3)
    }

    private func attribute(_ type: UInt16, _ content: [UInt8]) -> [UInt8] {
        number(UInt16(4 + content.count)) + number(type) + content + [UInt8](repeating: 0, count: -content.count & 3)
    }

    /// A refusal with the kernel's words, the request echoed in full or its header alone.
    private func refusal(capped: Bool) -> [UInt8] {
        let request = message(type: 16, [1, 2, 3, 4, 5, 6, 7, 8])
        let flags = UInt16(NLM_F_ACK_TLVS) | (capped ? UInt16(NLM_F_CAPPED) : 0)
        return message(
            type: UInt16(NLMSG_ERROR), flags: flags,
            number(-EEXIST) + (capped ? Array(request.prefix(16)) : request)
                + attribute(2, number(UInt32(4))) + attribute(1, Array("taken already\0".utf8)))
    }

    @Test(arguments: [true, false]) func `a refusal carries the kernel's words`(capped: Bool) throws {
        let replies = try NetlinkReply.parse(refusal(capped: capped))
        #expect(replies.count == 1 && replies[0].sequence == 7)
        let verdict = try replies[0].verdict()
        #expect(verdict.errno == EEXIST && verdict.text == "taken already")
    }

    private var link: [UInt8] {
        let header: [UInt8] = [0, 0] + number(UInt16(1)) + number(Int32(5)) + number(UInt32(1)) + number(UInt32(0))
        return message(
            type: 16,
            header + attribute(3, Array("mv0\0".utf8)) + attribute(4, number(UInt32(1450)))
                + attribute(1, [2, 0, 0, 0, 0, 9]) + attribute(10, number(UInt32(3)))
                + attribute(18 | 0x8000, attribute(1, Array("veth\0".utf8))))
    }

    @Test func `several messages of a datagram are taken apart`() throws {
        let replies = try NetlinkReply.parse(link + refusal(capped: true))
        #expect(replies.count == 2)
        let found = try #require(Link(replies[0]))
        #expect(found.index == 5 && found.name == "mv0" && found.isUp && found.mtu == 1450 && found.master == 3)
        #expect(found.mac == [2, 0, 0, 0, 0, 9] && found.kind == "veth" && found.alias == "")
        #expect(Link(replies[1]) == nil)
    }

    @Test func `no datagram that is cut or falsified brings it down`() throws {
        let whole = link + refusal(capped: false)
        #expect(throws: KernelError.self) { try NetlinkReply.parse(Array(whole.dropLast(8))) }
        var generator = Xorshift()
        func look(_ bytes: [UInt8]) {
            for reply in (try? NetlinkReply.parse(bytes)) ?? [] {
                _ = (Link(reply), Address(reply), Route(reply), try? reply.verdict())
                _ = (QueueingDiscipline(reply), Redirection.target(reply))
            }
        }
        for length in 0...whole.count { look(Array(whole.prefix(length))) }
        for _ in 0..<20_000 {
            var bytes = whole
            for _ in 0..<Int.random(in: 1...4, using: &generator) {
                bytes[Int.random(in: bytes.indices, using: &generator)] = .random(in: 0...255, using: &generator)
            }
            look(bytes)
        }
    }

    @Test func `a batch is its requests one behind the other, numbered, and no longer than it may be`() throws {
        var batch = NetlinkBatch()
        try batch.add(Link.deletion(of: "a"))
        try batch.add(Link.deletion(of: "a-longer-name"))
        let requests = try NetlinkReply.parse(batch.datagram(first: .max))
        #expect(requests.map(\.sequence) == [.max, 0])
        #expect(requests.allSatisfy { $0.type == UInt16(RTM_DELLINK) && $0.flags == UInt16(NLM_F_REQUEST | NLM_F_ACK) })
        let names = requests.map { NetlinkAttributes($0.payload.dropFirst(16)).text(IFLA_IFNAME) }
        #expect(names == ["a", "a-longer-name"])
        while batch.count < NetlinkBatch.limit { try batch.add(Link.deletion(of: "b")) }
        do {
            try batch.add(Link.deletion(of: "c"))
            Issue.record("the batch takes more than its limit")
        } catch {
            #expect(error.errno == E2BIG)
        }
    }
}
