import Glibc
import JSON
import Kernel
import Networking
import Testing

extension KernelSuite {
    @Suite(.serialized) struct RoutedOverlay {
        @Test func `pods reach each other and the host by its routes alone, in both families`() async throws {
            try await PrivateMachine.run { machine in
                let plugin = try RoutedProgram(machine)
                let (one, two) = (try plugin.pod("one"), try plugin.pod("two"))
                #expect(one.addresses == ["10.64.0.2/32", "fd64::2/128"])
                #expect(
                    one.result["ips"] == [
                        ["interface": 1, "address": "10.64.0.2/32", "gateway": "10.64.0.1"],
                        ["interface": 1, "address": "fd64::2/128", "gateway": "fd64::1"],
                    ])
                #expect(
                    one.result["routes"] == [
                        ["dst": "10.64.0.0/24", "gw": "10.64.0.1"], ["dst": "0.0.0.0/0", "gw": "10.64.0.1"],
                        ["dst": "fd64::/64", "gw": "fd64::1"], ["dst": "::/0", "gw": "fd64::1"],
                    ])
                let routes = try plugin.routes()
                #expect(
                    routes.count == 4 && routes.allSatisfy { $0.contains("dev mv") && $0.contains("proto 213") },
                    "\(routes)")
                let end = try machine.ip("addr show dev \(one.hostEnd)")
                #expect(end.contains("group 1828716545") && end.contains("mtu 1450") && !end.contains("inet"))
                #expect(try plugin.leases() == ["10.64.0.2", "10.64.0.3", "fd64::2", "fd64::3"])
                let talk = plugin.portmap
                let server = try talk.serve("tcp", 80, in: one.namespace)
                #expect(try talk.talk("tcp", to: "10.64.0.2", 80, from: two.namespace, server: server) == "10.64.0.3")
                #expect(try talk.talk("tcp", to: "fd64::2", 80, from: two.namespace, server: server) == "fd64::3")
                #expect(try talk.talk("tcp", to: "10.64.0.2", 80, server: server) == "10.64.0.1")
                #expect(try talk.talk("tcp", to: "fd64::2", 80, server: server) == "fd64::1")
                let host = try talk.serve("tcp", 81)
                #expect(try talk.talk("tcp", to: "10.64.0.1", 81, from: one.namespace, server: host) == "10.64.0.2")
                #expect(
                    try talk.talk("tcp", to: "198.51.100.2", 81, from: one.namespace, server: host) == "10.64.0.2")
                // Nobody asked for a hardware address.
                for namespace in [nil, one.namespace, two.namespace] {
                    let device = namespace == nil ? one.hostEnd : "eth0"
                    let lines = try machine.ip("neigh show dev \(device)", in: namespace).split(separator: "\n")
                    #expect(lines.count == 2 && lines.allSatisfy { $0.contains("PERMANENT") }, "\(lines)")
                }
                for pod in [one, two] { #expect(try plugin.call("DEL", pod.id, in: pod.namespace).isGood) }
                try plugin.expectNothing()
            }
        }

        @Test func `a pod has no IPv6 but where a subnet of it was given, and then what was written down alone`()
            async throws
        {
            try await PrivateMachine.run { machine in
                let plugin = try RoutedProgram(machine)
                let (four, both) = (try plugin.pod("four", v6: false), try plugin.pod("both"))
                #expect(four.addresses == ["10.64.0.2/32"])
                for (pod, has) in [(four, false), (both, true)] {
                    for (device, namespace) in [(pod.hostEnd, nil), ("eth0", pod.namespace)] {
                        let v6 = "ipv6/conf/\(device)"
                        #expect(try plugin.setting("\(v6)/disable_ipv6", in: namespace) == (has ? "0" : "1"))
                        if has { #expect(try plugin.setting("\(v6)/accept_ra", in: namespace) == "0") }
                        let found = try machine.ip("-6 addr show dev \(device)", in: namespace)
                        let ours = has && device == "eth0"
                        #expect(found.contains("fd64::") == ours && !found.contains("fe80"), "\(found)")
                        #expect(!found.contains("tentative"))
                    }
                    #expect(try plugin.setting("ipv4/conf/\(pod.hostEnd)/send_redirects") == "0")
                }
                let alone = try plugin.pod("alone") {
                    $0["name"] = "six"
                    $0["addresses"] = [["subnet": "fd65::/64", "gateway": "fd65::1"]]
                    $0["defaultRoute"] = false
                }
                #expect(alone.addresses == ["fd65::2/128"])
                let routes = try machine.ip("-6 route show", in: alone.namespace)
                #expect(routes.contains("fd65::/64 via fd65::1 dev eth0") && !routes.contains("default"))
            }
        }

        @Test func `CHECK sees each thing that is missing, on the host and in the container`() async throws {
            try await PrivateMachine.run { machine in
                let plugin = try RoutedProgram(machine)
                let one = try plugin.pod("one")
                func check() throws -> String {
                    try plugin.call("CHECK", "one", in: one.namespace) { $0["prevResult"] = one.result }.message
                }
                #expect(try check() == "")
                let mac = try machine.command("cat /sys/class/net/eth0/address || true", in: one.namespace)
                #expect(mac == "", "sysfs is the host's")
                let table = RoutedProgram.table
                let breaks: [(words: String, damage: String, repair: String, namespace: String?)] = [
                    (
                        "group 7", "ip link set \(one.hostEnd) group 7",
                        "ip link set \(one.hostEnd) group \(RoutedProgram.group)", nil
                    ),
                    (
                        "the route to 10.64.0.2 by \(one.hostEnd) is gone from the table \(table)",
                        "ip route del 10.64.0.2 table \(table)",
                        "ip route add 10.64.0.2 dev \(one.hostEnd) table \(table)", nil
                    ),
                    (
                        "the route to fd64::2", "ip -6 route del fd64::2 table \(table)",
                        "ip -6 route add fd64::2 dev \(one.hostEnd) table \(table)", nil
                    ),
                    (
                        "the neighbour fd64::2 of \(one.hostEnd) is gone", "ip -6 neigh del fd64::2 dev \(one.hostEnd)",
                        "ip -6 neigh add fd64::2 dev \(one.hostEnd) lladdr 02:42:0a:40:00:02", nil
                    ),
                    (
                        "accept_ra is 1", "echo 1 >/proc/sys/net/ipv6/conf/eth0/accept_ra",
                        "echo 0 >/proc/sys/net/ipv6/conf/eth0/accept_ra", one.namespace
                    ),
                    (
                        "the neighbour 10.64.0.1 of eth0 is gone", "ip neigh del 10.64.0.1 dev eth0",
                        "ip neigh add 10.64.0.1 dev eth0 lladdr 02:6d:76:00:00:01", one.namespace
                    ),
                    (
                        "the route to fd64::/64 by eth0 is gone", "ip -6 route del fd64::/64",
                        "ip -6 route add fd64::/64 via fd64::1 dev eth0", one.namespace
                    ),
                    (
                        "the default route of IPv6 is gone", "ip -6 route del default",
                        "ip -6 route add default via fd64::1 dev eth0", one.namespace
                    ),
                    (
                        "the address fd64::2 is not on eth0", "ip addr del fd64::2/128 dev eth0",
                        "ip addr add fd64::2/128 dev eth0 nodad", one.namespace
                    ),
                    (
                        "the lease of fd64::2 is gone", "mv \(plugin.directory)/over/fd64::2 \(machine.run)/kept",
                        "mv \(machine.run)/kept \(plugin.directory)/over/fd64::2", nil
                    ),
                ]
                for (words, damage, repair, namespace) in breaks {
                    try machine.command(damage, in: namespace)
                    #expect(try check().contains(words))
                    try machine.command(repair, in: namespace)
                    #expect(try check() == "", "after \(repair)")
                }
            }
        }

        @Test func `STATUS says when the host would forward nothing, or never look into the table`() async throws {
            try await PrivateMachine.run { machine in
                let plugin = try RoutedProgram(machine)
                func status() throws -> String { try plugin.call("STATUS", "", in: "").message }
                #expect(try status() == "")
                try machine.command("echo 0 >/proc/sys/net/ipv4/ip_forward")
                #expect(try status().contains("/proc/sys/net/ipv4/ip_forward"))
                try machine.command("echo 1 >/proc/sys/net/ipv4/ip_forward")
                try machine.ip("-6 rule del priority \(RoutedProgram.table)")
                #expect(try status().contains("ip -6 rule add table \(RoutedProgram.table)"))
            }
        }

        @Test func `addresses and the hardware address are those that were asked for, or nothing is taken`()
            async throws
        {
            try await PrivateMachine.run { machine in
                let plugin = try RoutedProgram(machine)
                // Where the address was before; the table is the first that is looked into.
                try machine.ip("route add 10.64.0.77 via 198.51.100.1 table \(RoutedProgram.table)")
                let asked: (inout JSONObject) -> Void = {
                    $0["runtimeConfig"] = ["ips": ["fd64::77/64", "10.64.0.77"], "mac": "02:00:00:00:00:77"]
                }
                let one = try plugin.pod("one", asked)
                #expect(one.addresses == ["10.64.0.77/32", "fd64::77/128"])
                let server = try plugin.portmap.serve("tcp", 80, in: one.namespace)
                let two = try plugin.pod("two")
                #expect(
                    try plugin.portmap.talk("tcp", to: "10.64.0.77", 80, from: two.namespace, server: server)
                        == "10.64.0.2")
                let leases = try plugin.leases()
                let refused = try plugin.call("ADD", "three", in: machine.pin("three")) {
                    $0["runtimeConfig"] = ["ips": ["10.64.0.78", "fd64::77"]]
                }
                #expect(refused.code == 101 && refused.message.contains("belongs to container one"))
                #expect(try plugin.leases() == leases, "the address of the other family is free again")
            }
        }

        @Test
        func `DEL deletes by the device's name, and routes and neighbours go with it, also of one that is let go`()
            async throws
        {
            try await PrivateMachine.run { machine in
                let plugin = try RoutedProgram(machine)
                let one = try plugin.pod("one")
                let blind = try plugin.call("DEL", "one", in: one.namespace, more: ["CNI_ARGS=MARTLET_END=1"]) {
                    for key in ["mode", "group", "table", "addresses"] { $0[key] = nil }
                }
                #expect(blind.isGood, "\(blind.message)")
                #expect(try machine.devices().contains(one.hostEnd), "until its namespace ends")
                #expect(try plugin.routes() == [] && plugin.leases() == [])
                // The next one of that name, while the old one is still there.
                let next = try plugin.call("ADD", "one", in: machine.pin("next"))
                #expect(next.isGood, "\(next.message)")
                #expect(try plugin.call("DEL", "one", in: "") { $0["prevResult"] = next.json }.isGood)
                try plugin.expectNothing()
            }
        }

        @Test(arguments: ["after_lease", "before_routes", "after_veth", "after_pod", "before_result"])
        func `what a plugin leaves that is killed is found by DEL or GC`(point: String) async throws {
            try await PrivateMachine.run { machine in
                let plugin = try RoutedProgram(machine)
                let pin = try machine.pin("one")
                for verb in ["DEL", "GC"] {
                    let killed = try plugin.call("ADD", "one", in: pin, more: ["MARTLET_FAILPOINT=plugin.\(point)"])
                    #expect(killed.status == .signaled(SIGKILL))
                    #expect(try plugin.leases().count == 2)
                    let kept = try plugin.pod("kept-\(verb)")
                    let cleaned = try plugin.call(verb, "one", in: pin) {
                        if verb == "GC" {
                            $0["cni.dev/valid-attachments"] = [["containerID": .string(kept.id), "ifname": "eth0"]]
                        }
                    }
                    #expect(cleaned.isGood, "\(cleaned.message)")
                    #expect(try machine.devices().count == 4 && plugin.routes().count == 2, "the other's stay")
                    #expect(try plugin.call("DEL", kept.id, in: "").isGood)
                    try plugin.expectNothing()
                }
            }
        }
    }
}
