import CKernel
import CNISpec
import Glibc
import Kernel
import Netfilter
import Netlink
import Synchronization

/// What is looked at.
struct NetworkParts: OptionSet, Sendable {
    let rawValue: Int
    /// Devices, routes, neighbours, rules.
    static let routing = NetworkParts(rawValue: 1)
    /// The packet filter.
    static let filter = NetworkParts(rawValue: 2)
    static let all: NetworkParts = [.routing, .filter]
}

/// Some networks of a node, of which it is known what the kernel should have.
protocol KeptNetworks: Sendable {
    /// Compares what is with what should be; with `repairs` it is that afterwards.
    ///
    /// - Returns: what differed, and what could not be looked at or mended.
    func look(repairs: Bool, _ parts: NetworkParts) -> [String]

    /// Whether one of the events is a change away from what should be. Our own changes are known before the kernel tells of
    /// them.
    func isForeign(_ events: [RoutingEvent]) -> Bool

    /// The same of the packet filter.
    func isForeign(_ event: FilterEvent) -> Bool
}

/// Keeps networks as they should be, on a thread in the network namespace of the one that makes it: it looks when the kernel
/// tells of a change that is not ours, and every 30 seconds.
final class NetworkWatch: Sendable {
    private let networks: any KeptNetworks
    private let report: @Sendable ([String]) -> Void
    /// Readable when the thread is to end.
    private let ending: SharedFD
    private let thread = Mutex<pthread_t?>(nil)

    /// Between looks that nobody asked for.
    private static let interval: Int64 = 30_000
    /// From the first change to the look: others come along with it.
    private static let calm: Int64 = 100
    /// That are kept until they are looked at.
    private static let mostEvents = 10_000

    init(_ networks: any KeptNetworks, report: @escaping @Sendable ([String]) -> Void) throws(KernelError) {
        self.networks = networks
        self.report = report
        ending = SharedFD(
            OwnedFD(adopting: try systemCall("eventfd") { eventfd(0, Int32(EFD_CLOEXEC)) }))
        var new = pthread_t()
        let argument = Unmanaged.passRetained(self)
        let number = pthread_create(
            &new, nil,
            { argument in
                guard let argument else { return nil }
                // SAFETY: the pointer was made by passRetained just before; pthread_create passes it on unchanged.
                Unmanaged<NetworkWatch>.fromOpaque(argument).takeRetainedValue().work()
                return nil
            }, argument.toOpaque())
        guard number == 0 else {
            argument.release()
            throw KernelError("pthread_create", errno: number)
        }
        let made = new
        thread.withLock { $0 = made }
    }

    /// Ends the thread and waits for it; done again it does nothing.
    func stop() {
        let running = thread.withLock { thread in
            defer { thread = nil }
            return thread
        }
        guard let running else { return }
        eventfd_write(ending.raw, 1)
        pthread_join(running, nil)
    }

    private func work() {
        while true {
            do throws(KernelError) {
                return try listen()
            } catch {
                report(["cannot listen to changes of the network: \(error)"])
                var wait = pollfd(fd: ending.raw, events: Int16(POLLIN), revents: 0)
                if poll(&wait, 1, Int32(Self.interval)) == 1 { return }
                look(.all)
            }
        }
    }

    /// Until the end.
    private func listen() throws(KernelError) {
        let routing = try NetlinkEvents.routing()
        let filter = try FilterEvents.listen()
        var dirty = NetworkParts.all
        var (due, full) = (Self.now(), Self.now() + Self.interval)
        while true {
            var now = Self.now()
            if now >= full { (dirty, due) = (.all, now) }
            if !dirty.isEmpty, now >= due {
                if dirty == .all { full = now + Self.interval }
                look(dirty)
                dirty = []
                let spent = Self.now() - now
                now += spent
                // A look takes a fifth of the time at most.
                due = now + 4 * spent
            }
            let until = dirty.isEmpty ? full : min(due, full)
            var waits = [ending.raw, routing.descriptor, filter.descriptor].map {
                pollfd(fd: $0, events: Int16(POLLIN), revents: 0)
            }
            _ = poll(&waits, 3, Int32(clamping: max(0, until - now)))
            if waits[0].revents != 0 { return }
            var new = NetworkParts()
            if waits[1].revents != 0 {
                let (replies, isWhole) = Self.drain(routing)
                if !isWhole || networks.isForeign(RoutingEvent.last(replies)) { new.insert(.routing) }
            }
            if waits[2].revents != 0 {
                let (replies, isWhole) = Self.drain(filter)
                if !isWhole || replies.contains(where: { FilterEvent($0).map { networks.isForeign($0) } ?? false }) {
                    new.insert(.filter)
                }
            }
            if !new.isEmpty, dirty.isEmpty { due = max(due, Self.now() + Self.calm) }
            dirty.formUnion(new)
        }
    }

    private func look(_ parts: NetworkParts) {
        let found = networks.look(repairs: true, parts)
        if !found.isEmpty { report(found) }
    }

    /// Reads all that there is, up to what a look is cheaper than.
    ///
    /// - Returns: the messages, and whether they are all: else some were lost, or there are too many.
    private static func drain(_ events: borrowing NetlinkEvents) -> (replies: [NetlinkReply], isWhole: Bool) {
        var (all, isWhole): ([NetlinkReply], Bool) = ([], true)
        while true {
            do throws(KernelError) {
                guard let replies = try events.next() else { return (all, isWhole) }
                if all.count < mostEvents { all += replies } else { isWhole = false }
            } catch {
                isWhole = false
                // ENOBUFS: some were lost, others are there still.
                if error.errno != ENOBUFS && error.errno != EBADMSG { return (all, isWhole) }
            }
        }
    }

    /// In milliseconds.
    private static func now() -> Int64 {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        return Int64(time.tv_sec) * 1000 + Int64(time.tv_nsec) / 1_000_000
    }
}

extension RoutingEvent {
    /// What messages tell, without what a device was before its last change: one of ours is down before it is up.
    fileprivate static func last(_ replies: [NetlinkReply]) -> [RoutingEvent] {
        let events = replies.compactMap { RoutingEvent($0) }
        var last: [Int32: Int] = [:]
        for (position, event) in events.enumerated() {
            if case .link(let link, isGone: false) = event { last[link.index] = position }
        }
        return events.enumerated().filter { position, event in
            if case .link(let link, isGone: false) = event { last[link.index] == position } else { true }
        }.map(\.element)
    }
}
