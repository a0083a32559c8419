import CKernel
import CNISpec
import Glibc
import Kernel
import Netfilter
import Netlink
import Synchronization

/// Keeps the fabric as it should be, on a thread in the network namespace of the one that makes it: it looks when the kernel
/// tells of a change that is not ours, and every 30 seconds.
final class OverlayWatch: Sendable {
    private let fabric: OverlayFabric
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

    init(_ fabric: OverlayFabric, report: @escaping @Sendable ([String]) -> Void) throws(KernelError) {
        self.fabric = fabric
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
                Unmanaged<OverlayWatch>.fromOpaque(argument).takeRetainedValue().work()
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
        var dirty = OverlayFabric.Parts.all
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
            var new = OverlayFabric.Parts()
            if waits[1].revents != 0 {
                let (replies, isWhole) = Self.drain(routing)
                if !isWhole || fabric.isForeign(replies) { new.insert(.routing) }
            }
            if waits[2].revents != 0 {
                let (replies, isWhole) = Self.drain(filter)
                if !isWhole || replies.contains(where: { FilterEvents.table($0) == OverlayFilter.name }) {
                    new.insert(.filter)
                }
            }
            if !new.isEmpty, dirty.isEmpty { due = max(due, Self.now() + Self.calm) }
            dirty.formUnion(new)
        }
    }

    private func look(_ parts: OverlayFabric.Parts) {
        let found = fabric.look(repairs: true, parts)
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

extension OverlayFabric {
    /// Whether one of the messages tells of a change away from what should be. Our own changes are known before the kernel
    /// tells of them.
    func isForeign(_ replies: [NetlinkReply]) -> Bool {
        let events = replies.compactMap { RoutingEvent($0) }
        if events.isEmpty { return false }
        // What a device was before its last change says nothing: one of ours is down before it is up.
        var last: [Int32: Int] = [:]
        for (position, event) in events.enumerated() {
            if case .link(let link, isGone: false) = event { last[link.index] = position }
        }
        return state.withLock { state in
            events.enumerated().contains { position, event in
                if case .link(let link, isGone: false) = event, last[link.index] != position { return false }
                return isForeign(event, state)
            }
        }
    }

    private func isForeign(_ event: RoutingEvent, _ state: State) -> Bool {
        switch event {
        case .link(let link, let isGone):
            guard let network = state.devices[link.name].flatMap({ state.networks[$0] }) else {
                return !isGone && link.alias.hasPrefix(mark + " ")
            }
            let isTunnel = link.name == network.configuration.device
            // A device that is not known by its number yet is being made.
            if isTunnel, network.index == 0 { return false }
            if isGone { return isTunnel }
            return !link.isUp || link.group != network.configuration.group
                || isTunnel && (link.index != network.index || link.mtu != UInt32(network.mtu))
        case .address(let address, let isGone):
            return isGone && state.indices[address.interface] != nil
        case .route(let route, let isGone):
            guard route.table == Self.table, let address = IPAddress(bytes: route.destination),
                let block = CIDR(address, prefixLength: route.prefixLength)
            else { return false }
            // A pod's is made before its wiring is known, and goes after that.
            if !isGone, state.networks.values.contains(where: { $0.owners[block] != nil }) { return false }
            return isGone == isWanted(block, route, state)
        case .neighbour(let neighbour, let isGone):
            guard isGone, let name = state.indices[neighbour.interface], let peers = state.peers[name] else {
                return false
            }
            guard let underlay = OverlayWay.underlay(ofGateway: neighbour.address) else { return neighbour.isPermanent }
            return peers.underlays.contains(underlay)
        case .forwarding(let entry, let isGone):
            guard isGone, let name = state.indices[entry.interface], let peers = state.peers[name],
                let underlay = IPAddress(bytes: entry.destination)
            else { return false }
            return peers.underlays.contains(underlay)
        case .rule(let rule, let isGone):
            return isGone && rule.table == Self.table && !state.networks.isEmpty
        }
    }

    /// Whether a route of our table should be there.
    private func isWanted(_ block: CIDR, _ route: Route, _ state: State) -> Bool {
        if let name = state.indices[route.interface], let network = state.networks[name] {
            guard network.takes(block), network.owners[block] == nil, let way = state.peers[name]?.way(to: block) else {
                return false
            }
            return route.gateway == OverlayWay(way).gateway(to: block)
        }
        guard let network = state.networks.values.first(where: { $0.takes(block) }) else { return false }
        if route.kind == .unreachable { return network.configuration.subnets.contains(block) }
        guard let owner = network.owners[block], route.gateway == nil else { return false }
        return network.pods[owner] != nil
    }
}
