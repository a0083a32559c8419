import CNISpec
import Glibc
import Kernel
import Networking
import Testing

extension KernelSuite {
    /// Networks that users made: apart from each other, from the node's own, and gone with the last who was on them.
    @Suite(.serialized) struct PodUserNetworks {
        /// A machine with its own network, and the networks that users make there.
        private struct Node {
            let machine: PrivateMachine
            let own: BridgeNetwork
            let users: UserNetworks

            init(_ machine: PrivateMachine) throws {
                self.machine = machine
                own = try machine.network()
                try own.prepare()
                users = UserNetworks(machine.configuration(), prefix: "mt-")
            }

            func configuration(
                _ name: String, _ subnet: String, _ change: (inout BridgeNetworkConfiguration) -> Void = { _ in }
            ) -> BridgeNetworkConfiguration {
                var configuration = users.configuration(name: name, subnet: subnet)
                change(&configuration)
                return configuration
            }

            /// A pod on a network: its namespace and its address.
            func pod(
                _ id: String, on configuration: BridgeNetworkConfiguration, ports: [PortMapping] = [],
                address: String? = nil, mac: String? = nil
            ) throws -> (namespace: String, address: String, found: EndpointAddresses) {
                let namespace = try machine.pin(id)
                let found = try users.attach(
                    id, to: configuration, namespacePath: namespace, interface: "eth0", ports: ports,
                    address: address.flatMap { IPAddress($0) }, mac: mac.flatMap { MACAddress($0) },
                    isDefaultRoute: true)
                return (namespace, found.address.address.description, found)
            }
        }

        private static let red = (name: "mt-aaaaaaaaaaaa", subnet: "172.18.0.0/16")
        private static let blue = (name: "mt-bbbbbbbbbbbb", subnet: "172.19.0.0/16")

        @Test func `members reach each other and the world, and nobody else reaches them`() async throws {
            try await PrivateMachine.run { machine in
                let node = try Node(machine)
                let red = node.configuration(Self.red.name, Self.red.subnet)
                let blue = node.configuration(Self.blue.name, Self.blue.subnet)
                let one = try node.pod("one", on: red)
                let two = try node.pod("two", on: red)
                let other = try node.pod("other", on: blue)
                let plain = try machine.pin("plain")
                let plainAddress = try node.own.attach("plain", namespacePath: plain).address.address.description
                #expect(one.address == "172.18.0.2" && one.found.gateway?.description == "172.18.0.1")
                let service = try machine.listen(80, in: one.namespace)
                #expect(try machine.talk(to: one.address, 80, from: two.namespace, listener: service) == two.address)
                let world = try machine.listen(80, in: machine.outside)
                #expect(
                    try machine.talk(to: "198.51.100.1", 80, from: one.namespace, listener: world) == "198.51.100.2")
                func reaches(_ from: String, _ to: String, _ listener: SharedFD) throws -> Bool {
                    try machine.talk(to: to, 80, from: from, listener: listener, within: 1) != nil
                }
                let others = try machine.listen(80, in: other.namespace)
                let plains = try machine.listen(80, in: plain)
                #expect(try !reaches(other.namespace, one.address, service))
                #expect(try !reaches(one.namespace, other.address, others))
                #expect(try !reaches(plain, one.address, service))
                #expect(try !reaches(one.namespace, plainAddress, plains))
                // Nor a machine next to it that has a route here.
                try machine.ip("route add 172.18.0.0/16 via 198.51.100.2", in: machine.outside)
                #expect(try !reaches(machine.outside, one.address, service))
                // It is our rules that keep them apart, whatever others accept.
                try machine.command("iptables -I FORWARD -j ACCEPT")
                #expect(try !reaches(plain, one.address, service))
                try machine.command("iptables -t mangle -F FORWARD")
                #expect(try reaches(plain, one.address, service))
            }
        }

        @Test func `a published port is the way from one network to another`() async throws {
            try await PrivateMachine.run { machine in
                let node = try Node(machine)
                let port = PortMapping(hostPort: 8080, containerPort: 80)
                let one = try node.pod("one", on: node.configuration(Self.red.name, Self.red.subnet), ports: [port])
                let other = try node.pod("other", on: node.configuration(Self.blue.name, Self.blue.subnet))
                let plain = try machine.pin("plain")
                _ = try node.own.attach("plain", namespacePath: plain)
                let service = try machine.listen(80, in: one.namespace)
                for from in [other.namespace, plain, machine.outside] {
                    #expect(try machine.talk(to: "198.51.100.2", 8080, from: from, listener: service) != nil)
                }
                #expect(try machine.talk(to: one.address, 80, from: plain, listener: service, within: 1) == nil)
            }
        }

        @Test func `an internal network has no way out or in`() async throws {
            try await PrivateMachine.run { machine in
                let node = try Node(machine)
                let closed = node.configuration(Self.red.name, Self.red.subnet) { $0.isInternal = true }
                let open = node.configuration(Self.blue.name, Self.blue.subnet)
                let one = try node.pod("one", on: closed, ports: [PortMapping(hostPort: 8080, containerPort: 80)])
                let two = try node.pod("two", on: closed)
                #expect(one.found.ports.isEmpty, "nothing is published")
                let service = try machine.listen(80, in: one.namespace)
                #expect(try machine.talk(to: one.address, 80, from: two.namespace, listener: service) != nil)
                let port = PortMapping(hostPort: 9090, containerPort: 80)
                let other = try node.pod("other", on: open, ports: [port])
                let others = try machine.listen(80, in: other.namespace)
                let world = try machine.listen(80, in: machine.outside)
                #expect(!(try machine.ip("route", in: one.namespace)).contains("default"))
                // What a pod with CAP_NET_ADMIN can do to get out.
                try machine.ip("route add default via 172.18.0.1", in: one.namespace)
                for (to, port, listener) in [("198.51.100.1", 80, world), ("198.51.100.2", 9090, others)] {
                    #expect(
                        try machine.talk(
                            to: to, UInt16(port), from: one.namespace, listener: listener, within: 1) == nil)
                }
            }
        }

        @Test func `a pod may have one address, gateway and hardware address and no other`() async throws {
            try await PrivateMachine.run { machine in
                let node = try Node(machine)
                let red = node.configuration(Self.red.name, Self.red.subnet) {
                    $0.gateway = "172.18.5.1"
                    $0.range = "172.18.5.0/29"
                    $0.reserved = ["172.18.5.2", "172.18.5.4"]
                    $0.mtu = 1300
                }
                let fixed = try node.pod("one", on: red, address: "172.18.9.9", mac: "02:42:ac:12:00:09")
                #expect(fixed.address == "172.18.9.9" && fixed.found.mac?.description == "02:42:ac:12:00:09")
                #expect(fixed.found.gateway?.description == "172.18.5.1")
                #expect(try machine.ip("link show eth0", in: fixed.namespace).contains("mtu 1300"))
                let namespace = try machine.pin("two")
                let taken = #expect(throws: NetworkError.self) {
                    _ = try node.users.attach(
                        "two", to: red, namespacePath: namespace, interface: "eth0",
                        address: IPAddress("172.18.9.9"), isDefaultRoute: true)
                }
                #expect(taken?.kind == .addressTaken && taken?.description.contains("task one's") == true)
                let other = #expect(throws: NetworkError.self) {
                    _ = try node.users.attach(
                        "two", to: red, namespacePath: namespace, interface: "eth0",
                        address: IPAddress("172.18.5.1"), isDefaultRoute: true)
                }
                #expect(other?.kind == .failed, "the gateway's is no container's: \(String(describing: other))")
                let rest = try ["a", "b", "c"].map { try node.pod($0, on: red).address }
                #expect(Set(rest).isDisjoint(with: ["172.18.5.1", "172.18.5.2", "172.18.5.4"]))
                #expect(
                    rest.allSatisfy { CIDR(red.range ?? "")?.contains(IPAddress($0) ?? IPAddress(.v4, 0)) ?? false })
            }
        }

        @Test func `the device and its rules come with the first and go with the last`() async throws {
            try await PrivateMachine.run { machine in
                let node = try Node(machine)
                let before = (try machine.devices(), try machine.allRules())
                let red = node.configuration(Self.red.name, Self.red.subnet)
                let port = PortMapping(hostPort: 8080, containerPort: 80)
                _ = try node.pod("one", on: red, ports: [port])
                _ = try node.pod("two", on: red)
                #expect(try machine.devices().contains(Self.red.name))
                try node.users.detach("one")
                #expect(try machine.devices().contains(Self.red.name))
                try node.users.detach("two")
                try node.users.detach("two")
                try node.own.detach("two")
                for id in ["one", "two"] { try NetworkNamespace.remove(at: "\(machine.run)/netns/\(id)") }
                #expect(try machine.devices() == before.0)
                #expect(try machine.allRules().filter { !$0.contains("CNI-HOSTPORT") } == before.1)
                #expect(!File.exists("\(machine.run)/cni/ipam/\(Self.red.name)"))
            }
        }

        @Test func `a running pod comes to a further network, leaves it, and keeps a way out`() async throws {
            try await PrivateMachine.run { machine in
                let node = try Node(machine)
                let (red, blue) = (
                    node.configuration(Self.red.name, Self.red.subnet),
                    node.configuration(Self.blue.name, Self.blue.subnet)
                )
                let one = try node.pod("one", on: red)
                let other = try node.pod("other", on: blue)
                let interface = try UserNetworks.freeInterface(in: one.namespace)
                #expect(interface == "eth1")
                let second = try node.users.attach(
                    "one", to: blue, namespacePath: one.namespace, interface: interface, isDefaultRoute: false)
                let service = try machine.listen(80, in: other.namespace)
                #expect(try machine.talk(to: other.address, 80, from: one.namespace, listener: service) != nil)
                #expect(
                    try node.users.addresses(of: "one", on: blue.name)?.address == second.address
                        && node.users.addresses(of: "one", on: red.name)?.interface == "eth0")
                try node.users.detach("one", from: red.name)
                let gateway = try #require(second.gateway)
                try UserNetworks.setDefaultRoute(in: one.namespace, through: gateway, on: "eth1")
                try UserNetworks.setDefaultRoute(in: one.namespace, through: gateway, on: "eth1")
                let world = try machine.listen(80, in: machine.outside)
                #expect(try machine.talk(to: "198.51.100.1", 80, from: one.namespace, listener: world) != nil)
            }
        }

        @Test func `what a process left that was killed is found by the next`() async throws {
            try await PrivateMachine.run { machine in
                let node = try Node(machine)
                let red = node.configuration(Self.red.name, Self.red.subnet)
                let living = try node.pod("living", on: red)
                _ = try node.pod("dead", on: red)
                // Its device is called as somebody likes.
                let blue = node.configuration(Self.blue.name, Self.blue.subnet) { $0.bridge = "own0" }
                _ = try node.pod("gone", on: blue)
                #expect(try machine.devices().contains("own0"))
                // A lease without a record, as a plugin leaves it that was killed.
                try File.replace(
                    "\(machine.run)/cni/ipam/\(Self.red.name)/172.18.0.77", with: Array("lost\r\neth1".utf8))
                let next = UserNetworks(machine.configuration(), prefix: "mt-")
                #expect(next.collectGarbage(living: ["living"]) == [])
                #expect(!File.exists("\(machine.run)/cni/ipam/\(Self.red.name)/172.18.0.77"))
                #expect(try !machine.devices().contains("own0"))
                #expect(try next.addresses(of: "living", on: red.name)?.address == living.found.address)
                let service = try machine.listen(80, in: living.namespace)
                #expect(try machine.talk(to: living.address, 80, listener: service) != nil)
                #expect(UserNetworks(machine.configuration(), prefix: "mt-").removeLeftovers() == [])
                #expect(try !machine.devices().contains { $0.hasPrefix("mt-") })
                #expect(try machine.allRules().filter { $0.contains("mt-") } == [])
            }
        }

        @Test func `what could not be made whole leaves nothing, and what could not be taken away goes later`()
            async throws
        {
            try await PrivateMachine.run { machine in
                let before = (try machine.devices(), try machine.allRules())
                // The rules that name the node's bridge are refused by iptables, after others have been made.
                var configuration = machine.configuration()
                configuration.bridge = "a-bridge-with-a-long-name"
                let broken = UserNetworks(configuration, prefix: "mt-")
                let namespace = try machine.pin("one")
                #expect(throws: NetworkError.self) {
                    _ = try broken.attach(
                        "one", to: broken.configuration(name: Self.red.name, subnet: Self.red.subnet),
                        namespacePath: namespace, interface: "eth0", isDefaultRoute: true)
                }
                #expect(try machine.devices() == before.0)
                #expect(try machine.allRules() == before.1)
                #expect(!File.exists("\(machine.run)/cni/ipam/\(Self.red.name)"))

                let node = try Node(machine)
                _ = try node.pod("two", on: node.configuration(Self.blue.name, Self.blue.subnet))
                let stuck = "\(machine.run)/cni/ipam/\(Self.blue.name)/stuck"
                try File.makeDirectories(stuck)
                try systemCall("mount", stuck) { mount("tmpfs", stuck, "tmpfs", 0, nil) }
                #expect(throws: NetworkError.self) { try node.users.detach("two") }
                try Mounts.detach(stuck)
                try node.users.detach("two")
                #expect(!File.exists("\(machine.run)/cni/ipam/\(Self.blue.name)"))
                #expect(try machine.allRules().filter { $0.contains(Self.blue.name) } == [])
            }
        }

        @Test func `a subnet that the machine reaches already is refused by name`() async throws {
            try await PrivateMachine.run { machine in
                let node = try Node(machine)
                let configuration = node.configuration(Self.red.name, "198.51.100.0/24")
                let namespace = try machine.pin("one")
                let error = #expect(throws: NetworkError.self) {
                    _ = try node.users.attach(
                        "one", to: configuration, namespacePath: namespace, interface: "eth0", isDefaultRoute: true)
                }
                #expect(error?.kind == .subnetTaken)
                #expect(error?.description.contains("up0") ?? false)
                #expect(node.users.collectGarbage(living: []) == [])
                #expect(!File.exists("\(machine.run)/cni/ipam/\(Self.red.name)"))
            }
        }
    }
}

extension PrivateMachine {
    /// Rules and chains of ours and of the plugins in all tables.
    fileprivate func allRules() throws -> [String] {
        try rules()
            + command("iptables -t mangle -S").split(separator: "\n").map { String($0) }.filter {
                $0.contains("martlet")
            }
    }
}
