import CNetlink
import Glibc
import Kernel
import Testing

@testable import Netlink

/// What is asked of the kernel about queueing, and what it answers; no kernel is asked.
@Suite struct ShapingMessageTests {
    private func link(_ index: Int32, _ name: String) throws -> Link {
        var header = ifinfomsg()
        header.ifi_index = index
        let request = try NetlinkRequest(RTM_NEWLINK, header: header, "RTM_NEWLINK", name)
        try request.put(IFLA_IFNAME, name)
        return try #require(try NetlinkReply.parse(request.bytes()).first.flatMap { Link($0) })
    }

    /// A request as if the kernel answered with it.
    private func reply(_ request: consuming NetlinkRequest) throws -> NetlinkReply {
        try #require(try NetlinkReply.parse(request.bytes()).first)
    }

    /// As the kernel tells a bucket: its size as the time in which it fills.
    private func told(_ bucket: TokenBucket, fillTime: UInt32) throws -> QueueingDiscipline {
        var parameters = tc_tbf_qopt()
        parameters.rate.rate = UInt32(clamping: bucket.rate)
        parameters.limit = bucket.limit
        parameters.buffer = fillTime
        let request = try NetlinkRequest(RTM_NEWQDISC, header: tcmsg(), "RTM_NEWQDISC", "")
        try request.put(TCA_KIND, "tbf")
        try request.nest(TCA_OPTIONS) { request throws(KernelError) in
            try request.put(TCA_TBF_PARMS, raw: parameters)
            if bucket.rate > UInt64(UInt32.max) { try request.put(TCA_TBF_RATE64, raw: bucket.rate) }
        }
        return try #require(try QueueingDiscipline(reply(request)))
    }

    @Test func `a bucket is known again by the time in which it fills, whatever the kernel rounds`() throws {
        let bucket = TokenBucket(rate: 1_000_000, burst: 100_000, limit: 125_000)
        // 100 ms in units of 64 ns.
        #expect(try told(bucket, fillTime: 1_562_500).holds(bucket))
        #expect(try told(bucket, fillTime: 1_562_499).holds(bucket))
        #expect(try !told(bucket, fillTime: 1_500_000).holds(bucket))
        for (rate, burst, limit) in [
            (2_000_000, 100_000, 125_000), (1_000_000, 50_000, 125_000), (1_000_000, 100_000, 1),
        ] {
            let other = TokenBucket(rate: UInt64(rate), burst: UInt32(burst), limit: UInt32(limit))
            #expect(try !told(bucket, fillTime: 1_562_500).holds(other))
        }
        let fast = TokenBucket(rate: 10_000_000_000, burst: 1_000_000, limit: .max)
        #expect(try told(fast, fillTime: 1562).holds(fast))
        // 4294.97 s are more units than 32 bits hold: the kernel tells the lower ones.
        let slow = TokenBucket(rate: 1_000_000, burst: .max, limit: .max)
        let units = UInt64(UInt32.max) * 1_000_000_000 / 1_000_000 / 64
        #expect(try told(slow, fillTime: UInt32(truncatingIfNeeded: units)).holds(slow))
    }

    @Test func `a bucket is asked for with its size in bytes, on the device's root`() throws {
        let request = try TokenBucket(rate: 5_000_000_000, burst: 77, limit: 99).request(
            on: link(7, "mv0"), handle: 0x6d61_0000)
        let answer = try reply(request)
        #expect(answer.payload.number(at: 4, as: Int32.self) == 7)
        #expect(answer.payload.number(at: 12, as: UInt32.self) == TC_H_ROOT)
        let found = try #require(QueueingDiscipline(answer))
        #expect(found.kind == "tbf" && found.handle == 0x6d61_0000)
        #expect(found.rate == 5_000_000_000 && found.limit == 99)
        let options = NetlinkAttributes(answer.payload.dropFirst(MemoryLayout<tcmsg>.size)).nested(TCA_OPTIONS)
        #expect(options.number(TCA_TBF_BURST) == UInt32(77))
    }

    @Test func `the filter that is asked for is read as what it does`() throws {
        var batch = NetlinkBatch()
        try Redirection(from: link(7, "mv0"), to: link(9, "mb0")).add(to: &batch)
        let replies = try NetlinkReply.parse(batch.datagram(first: 1))
        #expect(replies.map(\.type) == [UInt16(RTM_NEWQDISC), UInt16(RTM_NEWTFILTER)])
        #expect(replies.map { Redirection.target($0) } == [nil, 9])
        // One of another kind is somebody else's.
        let other = try NetlinkRequest(RTM_NEWTFILTER, header: tcmsg(), "RTM_NEWTFILTER", "")
        try other.put(TCA_KIND, "bpf")
        #expect(try Redirection.target(reply(other)) == 0)
    }

    @Test func `where the kernel lacks something its words are told with what to do`() throws {
        var batch = NetlinkBatch()
        try batch.add(FunctionalBlock("mb0", mtu: 1500).request())
        try batch.add(TokenBucket(rate: 1, burst: 1, limit: 1).request(on: link(7, "mv0"), handle: 1 << 16))
        try Redirection(from: link(7, "mv0"), to: link(9, "mb0")).add(to: &batch)
        let wanted: [(Int32, String)] = [
            (EOPNOTSUPP, "module ifb "), (ENOENT, "module sch_tbf "), (ENOENT, "module sch_ingress "),
            (ENOENT, "modules cls_u32 and act_mirred "),
        ]
        #expect(batch.entries.count == wanted.count)
        for (entry, (number, words)) in zip(batch.entries, wanted) {
            let hint = NetlinkAdvice.hint(entry.advice, errno: number, kernel: "Specified kind is unknown")
            #expect(hint.hasPrefix("Specified kind is unknown: ") && hint.contains(words), "\(hint)")
            #expect(NetlinkAdvice.hint(entry.advice, errno: EPERM, kernel: "no") == "no")
        }
    }
}
