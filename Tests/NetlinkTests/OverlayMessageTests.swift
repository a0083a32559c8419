import CNetlink
import Glibc
import Kernel
import Testing

@testable import Netlink

/// What overlay networks are made of: a message to the kernel has the form of what the kernel tells of it.
@Suite struct OverlayMessageTests {
    private let six: [UInt8] = [0xfd, 0x65] + [UInt8](repeating: 0, count: 12) + [1, 2]
    private let linkLocal: [UInt8] = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0x6d, 192, 0xff, 0xfe, 0, 2, 2]

    private var routes: [Route] {
        var onLink = Route(to: [10, 65, 2, 0], prefixLength: 26, gateway: [192, 0, 2, 2], interface: 7)
        onLink.isOnLink = true
        var other = Route(to: [10, 65, 3, 0], prefixLength: 26, gateway: linkLocal, interface: 7)
        (other.table, other.origin) = (OverlayNumbers.table, OverlayNumbers.routeProtocol)
        var refusing = Route(to: [10, 65, 0, 0], prefixLength: 20, gateway: nil, interface: 0)
        (refusing.kind, refusing.table) = (.unreachable, OverlayNumbers.table)
        return [
            onLink, other, refusing, Route(to: six, prefixLength: 128, gateway: nil, interface: 9),
            Route(to: six, prefixLength: 122, gateway: linkLocal, interface: 9),
        ]
    }

    private var device: VXLANDevice {
        var device = VXLANDevice(
            "mx-0123456789ab", vni: 0xabcdef, local: [192, 0, 2, 1], port: 4789, mtu: 1450,
            mac: [2, 0x6d, 192, 0, 2, 1])
        (device.group, device.alias) = (OverlayNumbers.group(vni: 0xabcdef), "martlet here")
        return device
    }

    private let neighbours = [
        Neighbour([192, 0, 2, 2], interface: 7, mac: [2, 0x6d, 192, 0, 2, 2]),
        Neighbour([0xfe, 0x80] + [UInt8](repeating: 1, count: 14), interface: 7, mac: [6, 1, 2, 3, 4, 5]),
    ]
    private let entries = [
        ForwardingEntry([2, 0x6d, 192, 0, 2, 2], interface: 7, destination: [192, 0, 2, 2]),
        ForwardingEntry([6, 1, 2, 3, 4, 5], interface: 7, destination: [0x20, 1] + [UInt8](repeating: 9, count: 14)),
    ]
    private let rules = [AF_INET, AF_INET6].map {
        PolicyRule(table: OverlayNumbers.table, priority: OverlayNumbers.rulePriority, family: $0)
    }

    /// All of them in one datagram.
    private func datagram() throws -> [UInt8] {
        var batch = NetlinkBatch()
        for route in routes { try batch.add(route.request()) }
        for route in routes { try batch.add(route.deletion()) }
        try batch.add(device.request())
        for neighbour in neighbours { try batch.add(neighbour.request()) }
        for entry in entries { try batch.add(entry.deletion()) }
        for rule in rules { try batch.add(rule.request()) }
        return batch.datagram(first: 1)
    }

    @Test func `routes, neighbours, entries and rules are told as they were made`() throws {
        let events = try NetlinkReply.parse(datagram()).map { try #require(RoutingEvent($0)) }
        var wanted: [RoutingEvent] = routes.map { .route($0, isGone: false) } + routes.map { .route($0, isGone: true) }
        guard case .link(let link, isGone: false) = events[2 * routes.count] else {
            Issue.record("no link where the device was made")
            return
        }
        #expect(VXLANDevice(link) == device && link.tunnel?.learns == false && link.group == 0x6dab_cdef)
        wanted.append(events[2 * routes.count])
        wanted += neighbours.map { .neighbour($0, isGone: false) } + entries.map { .forwarding($0, isGone: true) }
        wanted += rules.map { .rule($0, isGone: false) }
        #expect(events == wanted)
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
                switch RoutingEvent(reply) {
                case .route(let route, _):
                    #expect(
                        [4, 16].contains(route.destination.count) && route.prefixLength <= 8 * route.destination.count)
                    #expect(route.gateway.map { [4, 16].contains($0.count) } ?? true)
                case .neighbour(let neighbour, _): #expect([4, 16].contains(neighbour.address.count))
                case .forwarding(let entry, _): #expect([4, 16].contains(entry.destination.count))
                default: break
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

    @Test func `a node's hardware address follows from its own, and no two of a family are the same`() {
        #expect(OverlayNumbers.mac(of: [192, 0, 2, 7]) == [2, 0x6d, 192, 0, 2, 7])
        var seen: Set<[UInt8]> = []
        for last in 0..<10_000 {
            let mac = OverlayNumbers.mac(of: six.dropLast(2) + [UInt8(last >> 8), UInt8(last & 0xff)])
            // Locally administered, and nobody's group.
            #expect(mac.count == 6 && mac[0] & 3 == 2)
            seen.insert(mac)
        }
        #expect(seen.count == 10_000)
    }
}
