import CNIPlugin
import CNISpec
import Kernel

@testable import BandwidthPlugin
@testable import Netlink
@testable import OverlayPlugin
@testable import PortmapPlugin

extension FuzzTarget {
    /// What rtnetlink answers and tells.
    static let routing = FuzzTarget(
        name: "routing", longest: 2048,
        seeds: {
            var route = Route(to: [10, 64, 1, 0], prefixLength: 26, gateway: [192, 0, 2, 2], interface: 3)
            route.table = OverlayNumbers.table
            route.isOnLink = true
            let neighbour = Neighbour([192, 0, 2, 2], interface: 3, mac: [2, 0, 0, 0, 0, 1])
            let entry = ForwardingEntry([2, 0, 0, 0, 0, 1], interface: 3, destination: [192, 0, 2, 2])
            let device = VXLANDevice(
                "mx-0", vni: 4096, local: [192, 0, 2, 1], port: 4789, mtu: 1450, mac: [2, 0, 0, 0, 0, 2])
            let rule = PolicyRule(table: OverlayNumbers.table, priority: 7, family: 2)
            let address = Address([10, 64, 0, 1], prefixLength: 32, interface: 3)
            let (here, there): ([UInt8], [UInt8]) = ([192, 0, 2, 1], [192, 0, 2, 2])
            let association = SecurityAssociation(from: here, to: there, number: 1 << 31, request: 7, port: 4788)
            let policy = SecurityPolicy(
                IPsecSelector(from: here, to: there, port: 4788), .out, .encrypt(request: 7), priority: 9)
            // What is asked for has the form of what is told.
            return [
                (try? route.request())?.bytes(), (try? neighbour.request())?.bytes(), (try? entry.request())?.bytes(),
                (try? device.request())?.bytes(), (try? rule.request())?.bytes(), (try? address.request())?.bytes(),
                (try? association.request(key: [UInt8](repeating: 1, count: 20)))?.bytes(),
                (try? policy.request())?.bytes(),
            ].compactMap { $0 }
        }
    ) { input in
        let replies: [NetlinkReply]
        do {
            replies = try NetlinkReply.parse(input)
        } catch {
            return expectSentence(error)
        }
        for reply in replies {
            if let route = Route(reply) {
                expect(
                    [4, 16].contains(route.destination.count) && (0...128).contains(route.prefixLength), "a network")
            }
            if let neighbour = Neighbour(reply) { expect([4, 16].contains(neighbour.address.count), "an address") }
            if let entry = ForwardingEntry(reply) { expect([4, 16].contains(entry.destination.count), "an address") }
            if let association = SecurityAssociation(reply) {
                expect([4, 16].contains(association.source.count), "an address")
                expect(association.source.count == association.destination.count, "a pair of one family")
            }
            if let policy = SecurityPolicy(reply) {
                let count = policy.selector.isV6 ? 16 : 4
                expect(policy.selector.source?.count ?? count == count, "an address")
                expect(policy.selector.destination?.count ?? count == count, "an address")
            }
            if let link = Link(reply) { _ = VXLANDevice(link) }
            if let address = Address(reply) { expect([4, 16].contains(address.bytes.count), "an address") }
            _ = (PolicyRule(reply), QueueingDiscipline(reply), Redirection.target(reply))
            if let (_, text) = try? reply.verdict() {
                expect(text.utf8.count <= input.count * 3, "words are the kernel's")
            }
        }
    }

    /// What a CNI host tells our plugins to do.
    static let plugins = FuzzTarget(
        name: "plugins", longest: 4096,
        seeds: {
            [
                #"""
                {"cniVersion":"1.0.0","name":"net","type":"martlet-overlay","mode":"routed","group":7,"table":28020,
                "mtu":1450,"addresses":[{"subnet":"10.64.0.0/20","gateway":"10.64.0.1","ranges":[["10.64.0.9",
                "10.64.0.20"]]},{"subnet":"fd00:1::/64","gateway":"fd00:1::1"}],"defaultRoute":true,"dataDir":"/nowhere",
                "runtimeConfig":{"ips":["10.64.0.9/20","fd00:1::9"],"mac":"02:00:00:00:00:01"}}
                """#,
                #"""
                {"cniVersion":"1.0.0","name":"net","type":"martlet-overlay","mode":"shared","bridge":"b0","hairpin":true,
                "addresses":[{"subnet":"10.64.0.0/20"}],"dataDir":"/nowhere","dns":{"nameservers":["10.0.0.1"]}}
                """#,
                #"""
                {"cniVersion":"1.0.0","name":"net","type":"portmap","snat":true,"backend":"nftables","runtimeConfig":{
                "portMappings":[{"hostPort":80,"containerPort":8080,"protocol":"udp","hostIP":"192.0.2.1"}]},"prevResult":{
                "cniVersion":"1.0.0","interfaces":[{"name":"eth0","sandbox":"/n"}],"ips":[{"address":"10.0.0.2/24",
                "interface":0}]}}
                """#,
                #"""
                {"cniVersion":"1.0.0","name":"net","type":"bandwidth","ingressRate":8000,"ingressBurst":80000,"runtimeConfig":
                {"bandwidth":{"egressRate":8000,"egressBurst":80000}},"prevResult":{"cniVersion":"1.0.0"}}
                """#,
            ].map(bytes)
        }
    ) { input in
        for verb in ["ADD", "DEL", "CHECK"] {
            let environment = [
                "CNI_COMMAND": verb, "CNI_CONTAINERID": "c1", "CNI_IFNAME": "eth0", "CNI_NETNS": "/nowhere",
            ]
            do throws(CNIError) {
                let call = try PluginCall(environment: { environment[$0] }, input: input)
                expect(CNINames.isName(call.network), "a network has a plain name")
                do throws(CNIError) { _ = try OverlayConfiguration(call) } catch { expectRefusal(error) }
                do throws(CNIError) { _ = try PortmapConfiguration(call) } catch { expectRefusal(error) }
                do throws(CNIError) { _ = try BandwidthConfiguration(call) } catch { expectRefusal(error) }
            } catch {
                expectRefusal(error)
            }
        }
    }

    private static func expectRefusal(_ error: CNIError) {
        expect(error.code > 0, "a refusal has a code")
        expect(!error.message.utf8.contains { $0 < 32 || $0 == 127 }, "an error is one line: \(error.message)")
    }
}
