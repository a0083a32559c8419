import CNetlink
import Glibc
import Kernel
import Testing

@testable import Netlink

/// What encrypted overlay networks are made of: a message to the kernel has the form of what the kernel tells of it.
@Suite struct IPsecMessageTests {
    private let ends: [(here: [UInt8], there: [UInt8])] = [
        ([192, 0, 2, 1], [192, 0, 2, 2]),
        ([0x20, 1] + [UInt8](repeating: 0, count: 13) + [1], [0x20, 1] + [UInt8](repeating: 0, count: 13) + [2]),
    ]

    private var associations: [SecurityAssociation] {
        ends.map { SecurityAssociation(from: $0.here, to: $0.there, number: 0x8123_4567, request: 28020, port: 4788) }
    }

    private var policies: [SecurityPolicy] {
        ends.flatMap { end in
            [
                SecurityPolicy(
                    IPsecSelector(from: end.here, to: end.there, port: 4788), .out, .encrypt(request: 28020),
                    priority: 28020),
                SecurityPolicy(
                    IPsecSelector(from: nil, to: nil, isV6: end.here.count == 16, port: 4788), .in, .drop,
                    priority: 28021),
                SecurityPolicy(
                    IPsecSelector(from: end.here, to: nil, isV6: end.here.count == 16, port: 4788), .out, .drop,
                    priority: 28021),
            ]
        }
    }

    /// All of them in one datagram.
    private func datagram() throws -> [UInt8] {
        var batch = NetlinkBatch()
        let key = [UInt8](repeating: 5, count: SecurityAssociation.keyBytes)
        for association in associations { try batch.add(association.request(key: key)) }
        for policy in policies { try batch.add(policy.request()) }
        return batch.datagram(first: 1)
    }

    @Test func `associations and policies are told as they were made`() throws {
        let replies = try NetlinkReply.parse(datagram())
        #expect(replies.compactMap { SecurityAssociation($0) } == associations)
        #expect(replies.compactMap { SecurityPolicy($0) } == policies)
        // As the kernel's headers have them, which is what the offsets go by.
        #expect(MemoryLayout<xfrm_usersa_info>.size == 224 && MemoryLayout<xfrm_userpolicy_info>.size == 168)
        let first = try #require(replies.first)
        let attributes = NetlinkAttributes(first.payload.dropFirst(224))
        let cipher = try #require(attributes[Int(XFRMA_ALG_AEAD.rawValue)])
        #expect(cipher.count == 64 + 8 + 20 && cipher.number(at: 64, as: UInt32.self) == 160)
        #expect(String(decoding: cipher.prefix { $0 != 0 }, as: UTF8.self) == "rfc4106(gcm(aes))")
        let window = try #require(attributes[Int(XFRMA_REPLAY_ESN_VAL.rawValue)])
        #expect(window.count == 24 + 128 && window.number(at: 0, as: UInt32.self) == 32)
    }

    @Test func `what says something else is none of ours`() throws {
        let key = [UInt8](repeating: 5, count: SecurityAssociation.keyBytes)
        let association = try #require(associations.first)
        var batch = NetlinkBatch()
        try batch.add(association.request(key: key))
        let whole = batch.datagram(first: 1)
        // The protocol, the mode, the selector's family and its port's mask, behind the header of 16 bytes.
        for (offset, value) in [(76, UInt8(51)), (214, 1), (40, 0), (34, 0), (44, 6), (212, 9)] {
            var bytes = whole
            bytes[16 + offset] = value
            #expect(try NetlinkReply.parse(bytes).compactMap { SecurityAssociation($0) } == [], "\(offset)")
        }
    }

    @Test func `what is for packets of one mark or interface is none of ours`() throws {
        let key = [UInt8](repeating: 5, count: SecurityAssociation.keyBytes)
        for (attribute, content) in [
            (XFRMA_MARK, [UInt8](arrayLiteral: 7, 0, 0, 0, 255, 0, 0, 0)), (XFRMA_IF_ID, [9, 0, 0, 0]),
        ] {
            var batch = NetlinkBatch()
            for association in associations {
                let message = try association.request(key: key)
                try message.put(Int(attribute.rawValue), content)
                try batch.add(message)
            }
            for policy in policies {
                let message = try policy.request()
                try message.put(Int(attribute.rawValue), content)
                try batch.add(message)
            }
            let replies = try NetlinkReply.parse(batch.datagram(first: 1))
            #expect(replies.count == associations.count + policies.count)
            #expect(replies.compactMap { SecurityAssociation($0) } == [])
            #expect(replies.compactMap { SecurityPolicy($0) } == [])
        }
    }

    @Test func `what is cut or falsified brings nothing down and has addresses of no other length`() throws {
        let whole = try datagram()
        var state: UInt64 = 0x9e37_79b9_7f4a_7c15
        func next(_ limit: Int) -> Int {
            state ^= state << 13
            state ^= state >> 7
            state ^= state << 17
            return Int(state % UInt64(limit))
        }
        func look(_ bytes: [UInt8]) {
            for reply in (try? NetlinkReply.parse(bytes)) ?? [] {
                if let association = SecurityAssociation(reply) {
                    #expect([4, 16].contains(association.source.count))
                    #expect(association.source.count == association.destination.count)
                }
                if let policy = SecurityPolicy(reply) {
                    let count = policy.selector.isV6 ? 16 : 4
                    #expect(policy.selector.source?.count ?? count == count)
                    #expect(policy.selector.destination?.count ?? count == count)
                }
            }
        }
        for length in 0...whole.count { look(Array(whole.prefix(length))) }
        for _ in 0..<5_000 {
            var bytes = whole
            for _ in 0..<1 + next(4) { bytes[next(bytes.count)] = UInt8(next(256)) }
            look(bytes)
        }
    }
}
