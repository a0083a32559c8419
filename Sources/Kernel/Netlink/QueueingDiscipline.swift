import CNetlink
import Glibc
import Kernel

extension NetlinkRequest {
    /// About what packets wait for at a device, tc(8).
    ///
    /// - Parameters:
    ///   - parent: where it is: `TC_H_ROOT` …
    ///   - handle: its number; 0: any.
    ///   - info: of a filter: its priority and what it is for.
    init(
        _ type: Int, flags: Int32 = 0, at link: Link, parent: UInt32, handle: UInt32 = 0, info: UInt32 = 0,
        _ operation: String, _ subject: String
    ) throws(KernelError) {
        var header = tcmsg()
        header.tcm_ifindex = link.index
        header.tcm_handle = handle
        header.tcm_parent = parent
        header.tcm_info = info
        try self.init(type, flags: flags, header: header, operation, subject)
    }
}

/// A token bucket that packets wait for, tc-tbf(8): so many bytes a second on average, and at most so many at once.
package struct TokenBucket: Sendable, Equatable {
    /// In bytes a second; not 0.
    package var rate: UInt64
    /// The bucket's size in bytes. What is larger than this is dropped, but for what the kernel can divide.
    package var burst: UInt32
    /// How many bytes may wait; what comes then is dropped.
    package var limit: UInt32

    package init(rate: UInt64, burst: UInt32, limit: UInt32) {
        self.rate = rate
        self.burst = burst
        self.limit = limit
    }

    private static let kind = "tbf"

    /// Makes it the device's root, for all that leaves by the device. EEXIST: there is another one already.
    ///
    /// - Parameter handle: its number, the lower 16 bits 0: by this it is known again.
    package func request(on link: Link, handle: UInt32) throws(KernelError) -> NetlinkRequest {
        let request = try NetlinkRequest(
            RTM_NEWQDISC, flags: Int32(NLM_F_CREATE | NLM_F_EXCL), at: link, parent: TC_H_ROOT, handle: handle,
            "RTM_NEWQDISC", "\(Self.kind) on \(link.name)")
        try request.put(TCA_KIND, Self.kind)
        var parameters = tc_tbf_qopt()
        parameters.limit = limit
        parameters.rate.rate = UInt32(clamping: rate)
        // Otherwise the kernel wants a table of times for all sizes, as it did before Linux 3.8.
        parameters.rate.linklayer = UInt8(TC_LINKLAYER_ETHERNET.rawValue)
        try request.nest(TCA_OPTIONS) { request throws(KernelError) in
            try request.put(TCA_TBF_PARMS, raw: parameters)
            try request.put(TCA_TBF_BURST, burst)
            if rate > UInt64(UInt32.max) { try request.put(TCA_TBF_RATE64, raw: rate) }
        }
        return request.advising(
            ENOENT, "the kernel lacks the token bucket: load its module sch_tbf (CONFIG_NET_SCH_TBF)")
    }

    /// Takes it away; that there is none of this handle, or no such device, is no error.
    package static func deletion(from link: Link, handle: UInt32) throws(KernelError) -> NetlinkRequest {
        let request = try NetlinkRequest(
            RTM_DELQDISC, at: link, parent: TC_H_ROOT, handle: handle, "RTM_DELQDISC", "\(kind) on \(link.name)"
        ).tolerating(ENOENT, EINVAL, ENODEV)
        // With it the kernel compares.
        try request.put(TCA_KIND, kind)
        return request
    }
}

/// What a device sends its packets by, as the kernel describes it: the root of its queueing disciplines, tc(8).
package struct QueueingDiscipline: Sendable, Equatable {
    /// `tbf`, `pfifo_fast` …
    package let kind: String
    package let handle: UInt32
    /// Of a token bucket: bytes a second, 0 for others.
    let rate: UInt64
    /// Of a token bucket: how many bytes may wait.
    let limit: UInt32
    /// Of a token bucket: the time in which it fills, in units of 64 ns, the lower 32 bits (/proc/net/psched).
    let fillTime: UInt32

    private static let nanosecondsPerUnit: UInt64 = 64

    /// The root of a device; nil: it has none, and packets wait nowhere.
    package static func root(
        of link: Link, _ socket: inout NetlinkSocket
    ) throws(KernelError) -> QueueingDiscipline? {
        // Before Linux 6.12 the answer went to those who listen for changes, and to us only with this flag. For a
        // device whose root is the kernel's own there was EINVAL.
        let request = try NetlinkRequest(
            RTM_GETQDISC, flags: Int32(NLM_F_ECHO), at: link, parent: TC_H_ROOT, "RTM_GETQDISC", link.name
        ).tolerating(ENOENT, EINVAL)
        return try socket.ask(request, isDump: false).compactMap { QueueingDiscipline($0) }.first
    }

    /// From an RTM_NEWQDISC; nil when it is none.
    init?(_ reply: NetlinkReply) {
        guard reply.type == UInt16(RTM_NEWQDISC), let handle = reply.payload.number(at: 8, as: UInt32.self) else {
            return nil
        }
        let attributes = NetlinkAttributes(reply.payload.dropFirst(MemoryLayout<tcmsg>.size))
        guard let kind = attributes.text(TCA_KIND) else { return nil }
        self.kind = kind
        self.handle = handle
        let options = attributes.nested(TCA_OPTIONS)
        // struct tc_tbf_qopt: two rates of 12 bytes, the number last in each; then limit and fill time.
        guard kind == "tbf", let parameters = options[TCA_TBF_PARMS],
            let rate = parameters.number(at: 8, as: UInt32.self),
            let limit = parameters.number(at: 24, as: UInt32.self),
            let fillTime = parameters.number(at: 28, as: UInt32.self)
        else {
            (rate, limit, fillTime) = (0, 0, 0)
            return
        }
        self.rate = options.number(TCA_TBF_RATE64) ?? UInt64(rate)
        self.limit = limit
        self.fillTime = fillTime
    }

    /// Whether it is this bucket. The kernel tells its size only as a time, rounded: a thousandth is no difference.
    package func holds(_ bucket: TokenBucket) -> Bool {
        guard kind == "tbf", rate == bucket.rate, limit == bucket.limit, rate > 0 else { return false }
        let wanted = UInt64(bucket.burst) * 1_000_000_000 / bucket.rate / Self.nanosecondsPerUnit
        let difference = Int32(bitPattern: fillTime &- UInt32(truncatingIfNeeded: wanted))
        return UInt64(difference.magnitude) <= wanted / 1000 + 2
    }
}
