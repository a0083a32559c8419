import Glibc
import JSON
import Kernel
import Netlink
import Testing

extension KernelSuite {
    /// What our messages make, as the program `ip` sees it.
    @Suite(.serialized) struct NetlinkObjects {
        private func json(
            _ machine: PrivateMachine, _ words: String, in namespace: String? = nil
        ) throws -> [JSONValue] {
            guard case .array(let values) = try JSONValue.parse(machine.ip("-j \(words)", in: namespace)) else {
                return []
            }
            return values
        }

        @Test func `a pair is born in two namespaces, on a bridge, with all that was asked for`() async throws {
            try await PrivateMachine.run { machine in
                try machine.ip("link add br0 type bridge")
                let pin = try machine.pin("pod")
                let namespace = try File.open(pin, O_RDONLY)
                var socket = try NetlinkSocket()
                let bridge = try #require(try Link.named("br0", &socket))
                #expect(bridge.kind == "bridge" && !bridge.isUp)
                var pair = VethPair("mv0", peer: "eth0", namespace: namespace.raw, mtu: 1300)
                pair.mac = [2, 0, 0, 0, 0, 1]
                pair.peerMAC = [2, 0, 0, 0, 0, 2]
                pair.master = bridge.index
                var quiet = LinkChange()
                quiet.hasNoGeneratedAddress = true
                var change = LinkChange()
                change.isUp = true
                change.alias = "ours"
                change.port = BridgePort()
                change.port?.hairpin = true
                change.port?.learning = false
                change.port?.isIsolated = true
                var batch = NetlinkBatch()
                try batch.add(pair.request())
                try batch.add(quiet.request(for: "mv0"))
                try batch.add(change.request(for: "mv0"))
                try socket.send(batch)

                let near = try #require(try self.json(machine, "-d link show mv0").first)
                #expect(near["master"] == "br0" && near["mtu"] == 1300 && near["ifalias"] == "ours")
                #expect(near["address"] == "02:00:00:00:00:01" && near["inet6_addr_gen_mode"] == "none")
                #expect(near["linkinfo"]?["info_kind"] == "veth")
                let port = near["linkinfo"]?["info_slave_data"]
                #expect(port?["hairpin"] == true && port?["learning"] == false && port?["isolated"] == true)
                let far = try #require(try self.json(machine, "link show eth0", in: pin).first)
                #expect(far["address"] == "02:00:00:00:00:02" && far["mtu"] == 1300 && far["operstate"] == "DOWN")

                let read = try #require(try Link.named("mv0", &socket))
                #expect(read.mac == [2, 0, 0, 0, 0, 1] && read.mtu == 1300 && read.isUp && read.alias == "ours")
                #expect(read.master == bridge.index && read.kind == "veth")
                let names = try Link.all(&socket).map(\.name).sorted()
                #expect(try names == machine.devices())
                for _ in 0..<2 { try socket.send(Link.deletion(of: "mv0")) }
                #expect(try Link.named("mv0", &socket) == nil)
                #expect(try self.json(machine, "link show", in: pin).count == 1)
            }
        }

        @Test func `addresses and routes of both families are there as asked for`() async throws {
            try await PrivateMachine.run { machine in
                try machine.ip("link add v0 type veth peer name v1")
                try machine.ip("link set v1 up")
                var socket = try NetlinkSocket()
                let link = try #require(try Link.named("v0", &socket))
                let six: [UInt8] = [0xfd] + [UInt8](repeating: 0, count: 14) + [9]
                let router: [UInt8] = [0xfd] + [UInt8](repeating: 0, count: 14) + [1]
                let own = [
                    Address([10, 9, 1, 2], prefixLength: 18, interface: link.index),
                    Address(six, prefixLength: 64, interface: link.index),
                ]
                let routes = [
                    Route(to: [192, 0, 2, 0], prefixLength: 24, gateway: [10, 9, 0, 1], interface: link.index),
                    Route(to: [192, 0, 3, 0], prefixLength: 24, gateway: nil, interface: link.index),
                    Route(
                        to: [UInt8](repeating: 0, count: 16), prefixLength: 0, gateway: router, interface: link.index),
                ]
                var up = LinkChange()
                up.isUp = true
                up.mtu = 1400
                var batch = NetlinkBatch()
                try batch.add(up.request(for: "v0"))
                for address in own { try batch.add(address.request()) }
                for route in routes { try batch.add(route.request()) }
                try socket.send(batch)

                let shown = try self.json(machine, "addr show v0").first?["addr_info"]
                guard case .array(let addresses)? = shown else { throw KernelError("ip addr", errno: EINVAL) }
                let four = addresses.first { $0["local"] == "10.9.1.2" }
                #expect(four?["prefixlen"] == 18 && four?["broadcast"] == "10.9.63.255" && four?["scope"] == "global")
                let sixth = addresses.first { $0["local"] == "fd00::9" }
                #expect(sixth?["prefixlen"] == 64 && sixth?["tentative"] == nil)
                #expect(try self.json(machine, "route show 192.0.2.0/24").first?["gateway"] == "10.9.0.1")
                #expect(try self.json(machine, "route show 192.0.3.0/24").first?["scope"] == "link")
                #expect(try self.json(machine, "-6 route show default").first?["gateway"] == "fd00::1")
                let found = try Address.all(&socket)
                for address in own { #expect(found.contains(address)) }
                let ways = try Route.all(family: AF_INET, &socket) + Route.all(family: AF_INET6, &socket)
                for route in routes { #expect(ways.contains(route)) }

                try machine.ip("neigh add 10.9.0.7 lladdr 02:00:00:00:00:07 dev v0")
                for _ in 0..<2 { try socket.send(Neighbour([10, 9, 0, 7], interface: link.index).deletion()) }
                #expect(try !machine.ip("neigh show").contains("02:00:00:00:00:07"))
            }
        }

        @Test func `a refusal names object and reason, and those behind it are carried out`() async throws {
            try await PrivateMachine.run { machine in
                var socket = try NetlinkSocket()
                var alias = LinkChange()
                alias.alias = "behind"
                var enslave = LinkChange()
                enslave.master = 1
                var batch = NetlinkBatch()
                try batch.add(Address([10, 9, 0, 1], prefixLength: 24, interface: 4711).request())
                try batch.add(enslave.request(for: "up0"))
                try batch.add(
                    Route(to: [10, 0, 0, 0], prefixLength: 8, gateway: [203, 0, 113, 1], interface: 1).request())
                try batch.add(alias.request(for: "up0"))
                let outcomes = try socket.perform(batch)
                #expect(outcomes.map { $0?.errno } == [ENODEV, EOPNOTSUPP, ENETUNREACH, nil])
                #expect(outcomes[1]?.description.hasPrefix("RTM_NEWLINK up0: ") == true)
                #expect(outcomes[2]?.description.contains("Nexthop has invalid gateway") == true)
                #expect(try Link.named("up0", &socket)?.alias == "behind")
            }
        }
    }
}
