import CNISpec
import Glibc
import JSON
import Kernel
import Networking
import Testing

/// bandwidth as any CNI host calls it, behind martlet-overlay.
private struct BandwidthProgram: Sendable {
    let overlay: OverlayProgram
    let path: String
    var machine: PrivateMachine { overlay.machine }

    init(_ machine: PrivateMachine) throws {
        overlay = try OverlayProgram(machine)
        path = try ShimFixture.program("bandwidth")
    }

    /// Why nothing can be shaped here; nil: it can.
    static let missing: String? = {
        let line = """
            ip link add name ifbtest type ifb && tc qdisc add dev ifbtest root tbf rate 8mbit burst 16kb limit 32kb &&
            tc qdisc add dev ifbtest ingress && tc filter add dev ifbtest parent ffff: protocol all u32 match u32 0 0 \
            action mirred egress redirect dev lo
            """
        let environment = ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]
        guard
            let result = try? Program("/usr/bin/unshare", ["-n", "/bin/sh", "-c", line], environment: environment).run()
        else { return "unshare cannot be run" }
        return result.status == .exited(0) ? nil : result.errorText
    }()

    /// 1000 bytes a second and 16 packets at once, in both directions.
    static let slow: JSONObject = [
        "ingressRate": 8000, "ingressBurst": 128_000, "egressRate": 8000, "egressBurst": 128_000,
    ]

    func call(
        _ verb: String, _ id: String, in namespace: String, more: [String] = [], limits: JSONObject = Self.slow,
        previous: JSONValue? = nil, _ change: (inout JSONObject) -> Void = { _ in }
    ) throws -> OverlayProgram.Answer {
        var configuration: JSONObject = [
            "cniVersion": "1.1.0", "name": "net", "type": "bandwidth", "capabilities": ["bandwidth": true],
            "runtimeConfig": ["bandwidth": .object(limits)],
        ]
        configuration["prevResult"] = previous
        change(&configuration)
        return try OverlayProgram.call(
            path, verb, id, in: namespace, interface: "eth0", more: more,
            input: JSONValue.object(configuration).serialized())
    }

    struct Container {
        let id: String
        let namespace: String
        /// What martlet-overlay answered.
        let wired: JSONValue
        let hostEnd: String
        let address: String
    }

    /// A container on the bridge that is not shaped.
    func container(_ id: String) throws -> Container {
        let namespace = try machine.pin(id)
        let added = try overlay.call("ADD", id, in: namespace)
        let result = try CNIResult(JSONReader(added.json), version: .v1_1_0)
        return Container(
            id: id, namespace: namespace, wired: added.json, hostEnd: result.interfaces[1].name,
            address: try #require(result.addresses.first?.address.address.description))
    }

    func add(
        _ container: Container, more: [String] = [], limits: JSONObject = Self.slow,
        _ change: (inout JSONObject) -> Void = { _ in }
    ) throws -> OverlayProgram.Answer {
        try call(
            "ADD", container.id, in: container.namespace, more: more, limits: limits, previous: container.wired, change)
    }

    /// What `tc` says of a device's disciplines, the kernel's own left out.
    func disciplines(_ device: String) throws -> [JSONValue] {
        guard case .array(let all) = try JSONValue.parse(machine.command("tc -s -j qdisc show dev \(device)")) else {
            return []
        }
        return all.filter { ["tbf", "ingress", "clsact", "htb"].contains($0["kind"]?.stringValue ?? "") }
    }

    func blocks() throws -> [String] { try machine.devices().filter { $0.hasPrefix("mb") } }

    /// Nothing shapes this container.
    func expectNothing(_ container: Container) throws {
        #expect(try blocks() == [])
        #expect(try disciplines(container.hostEnd) == [])
    }

    /// Datagrams of 1000 bytes that arrived here, where nobody listens for them.
    func arrived(in namespace: String?) throws -> Int {
        let lines = try machine.command("grep ^Udp: /proc/net/snmp", in: namespace).split(separator: "\n")
        let words = lines.map { $0.split(separator: " ") }
        let index = try #require(words.first?.firstIndex(of: "NoPorts"))
        return Int(words[1][index]) ?? 0
    }

    static let sent = 60

    /// Sends at once what is several times the bucket, and returns how much of it arrived; waits for `least`.
    func flood(_ address: String, from source: String?, to destination: String?, least: Int) throws -> Int {
        let before = try arrived(in: destination)
        try machine.command(
            "bash -c 'for i in $(seq \(Self.sent)); do printf %01000d 0 >/dev/udp/\(address)/9; done'", in: source)
        for _ in 0..<500 where try arrived(in: destination) - before < least { usleep(10_000) }
        return try arrived(in: destination) - before
    }
}

extension KernelSuite {
    @Suite(
        .serialized,
        .enabled(
            if: BandwidthProgram.missing == nil,
            Comment(rawValue: "nothing can be shaped here: \(BandwidthProgram.missing ?? "")")))
    struct BandwidthPluginByHand {
        @Test func `a flood is cut to the bucket in both directions, and another container's is not`() async throws {
            try await PrivateMachine.run { machine in
                let plugin = try BandwidthProgram(machine)
                let (one, two) = (try plugin.container("one"), try plugin.container("two"))
                let added = try plugin.add(one)
                #expect(added.isGood, "\(added.message)")
                let block = try #require(try plugin.blocks().first)
                // At 1000 bytes a second the half that is neither in the bucket nor waiting has no chance for 30 s.
                let into = try plugin.flood(one.address, from: nil, to: one.namespace, least: 5)
                #expect((5..<45).contains(into), "\(into)")
                let out = try plugin.flood("10.9.0.1", from: one.namespace, to: nil, least: 5)
                #expect((5..<45).contains(out), "\(out)")
                for device in [one.hostEnd, block] {
                    let bucket = try #require(try plugin.disciplines(device).first)
                    #expect(bucket["kind"] == "tbf" && bucket["handle"] == "6d61:")
                    guard case .integer(let drops)? = bucket["drops"], case .integer(let bytes)? = bucket["bytes"]
                    else {
                        Issue.record("no counters: \(bucket)")
                        return
                    }
                    #expect(drops > 5, "\(device)")
                    #expect(bytes > 5000 && bytes < 47_000, "\(device)")
                }
                let all = BandwidthProgram.sent
                #expect(try plugin.flood(two.address, from: nil, to: two.namespace, least: all) >= all)
                #expect(try plugin.flood("10.9.0.1", from: two.namespace, to: nil, least: all) >= all)
            }
        }

        @Test func `ADD makes what is asked for, CHECK compares it with the kernel, DEL takes it away`() async throws {
            try await PrivateMachine.run { machine in
                let plugin = try BandwidthProgram(machine)
                let one = try plugin.container("one")
                // More than 32 bits of bytes a second and of 64 ns to fill the bucket.
                let limits: JSONObject = [
                    "ingressRate": 80_000_000_000, "ingressBurst": 8_000_000, "egressRate": 8_000_000,
                    "egressBurst": 34_359_738_360,
                ]
                let added = try plugin.add(one, limits: limits)
                let result = try CNIResult(JSONReader(added.json), version: .v1_1_0)
                let block = try #require(result.interfaces.last)
                #expect(try plugin.blocks() == [block.name] && block.sandbox == nil && block.mtu == 1500)
                #expect(added.json["ips"] == one.wired["ips"] && result.interfaces.count == 4)
                let outer = try plugin.disciplines(one.hostEnd)
                #expect(outer.map { $0["kind"] } == ["tbf", "ingress"])
                #expect(outer.first?["options"]?["rate"] == 10_000_000_000)
                #expect(try plugin.disciplines(block.name).first?["options"]?["rate"] == 1_000_000)
                #expect(try machine.ip("-d link show \(block.name)").contains("alias martlet-bandwidth net one eth0 "))

                func check() throws -> OverlayProgram.Answer {
                    try plugin.call("CHECK", "one", in: one.namespace, limits: limits, previous: added.json)
                }
                #expect(try check().message == "")
                let breaks: [(String, String)] = [
                    (
                        "tc qdisc change dev \(one.hostEnd) root handle 6d61: tbf rate 1mbit burst 10kb limit 20kb",
                        "what goes to the container is not shaped: the token bucket of \(one.hostEnd) is of another rate"
                    ),
                    ("tc qdisc del dev \(one.hostEnd) root", "\(one.hostEnd) has no token bucket of ours"),
                    ("tc qdisc del dev \(one.hostEnd) ingress", "\(one.hostEnd) is not redirected to \(block.name)"),
                    (
                        "tc qdisc del dev \(block.name) root",
                        "what comes from the container is not shaped: \(block.name) has"
                    ),
                    ("ip link set \(block.name) down", "the device \(block.name) is down"),
                    ("ip link del \(block.name)", "the device \(block.name) is gone"),
                ]
                for (line, words) in breaks {
                    try machine.command(line)
                    let answer = try check()
                    #expect(answer.code == 103 && answer.message.contains(words), "\(answer.message)")
                    // Anew, as a caller that is told so does.
                    for _ in 0..<2 {
                        #expect(
                            try plugin.call("DEL", "one", in: one.namespace, limits: limits, previous: added.json)
                                .isGood)
                    }
                    try plugin.expectNothing(one)
                    #expect(try plugin.add(one, limits: limits).isGood)
                    #expect(try check().isGood)
                }
                // Limits that ADD would refuse are not in the way, nor is a namespace that is gone.
                try NetworkNamespace.remove(at: one.namespace)
                for _ in 0..<2 {
                    #expect(
                        try plugin.call(
                            "DEL", "one", in: one.namespace, limits: ["egressRate": 1], previous: added.json
                        )
                        .isGood)
                }
                #expect(try plugin.blocks() == [])
                #expect(try plugin.call("DEL", "never", in: "").isGood)
            }
        }

        @Test func `one direction alone, and none, need no more than they must`() async throws {
            try await PrivateMachine.run { machine in
                let plugin = try BandwidthProgram(machine)
                let one = try plugin.container("one")
                let none = try plugin.add(one, limits: [:])
                #expect(none.isGood && none.json == one.wired)
                try plugin.expectNothing(one)
                let into = try plugin.add(one, limits: ["ingressRate": 8000, "ingressBurst": 16000])
                #expect(into.isGood && into.json == one.wired)
                #expect(try plugin.blocks() == [])
                #expect(try plugin.disciplines(one.hostEnd).map { $0["kind"] } == ["tbf"])
                // DEL goes by the devices, whatever became of the configuration.
                let blind = try plugin.call("DEL", "one", in: one.namespace, limits: ["ingressRate": "much"]) {
                    $0["prevResult"] = 3
                    $0["later"] = ["a": 1]
                }
                #expect(blind.isGood, "\(blind.message)")
                try plugin.expectNothing(one)
                // Of the list itself, in the first version that we speak.
                let out = try plugin.add(one, limits: [:]) {
                    $0["cniVersion"] = "0.3.1"
                    $0["egressRate"] = 8000
                    $0["egressBurst"] = 16000
                }
                #expect(out.isGood && out.json["cniVersion"] == "0.3.1")
                #expect(try plugin.disciplines(one.hostEnd).map { $0["kind"] } == ["ingress"])
                #expect(try plugin.blocks().count == 1)
                #expect(try plugin.call("DEL", "one", in: "").isGood, "without namespace and result")
                try plugin.expectNothing(one)
            }
        }

        @Test func `what cannot be leaves nothing half-made, and nothing of others is touched`() async throws {
            try await PrivateMachine.run { machine in
                let plugin = try BandwidthProgram(machine)
                let one = try plugin.container("one")
                func refused(_ answer: OverlayProgram.Answer, _ code: Int64, _ word: String) throws {
                    #expect(answer.status == .exited(1) && answer.code == .integer(code), "\(answer.message)")
                    #expect(answer.message.contains(word) && !answer.message.contains("\n"), "\(answer.message)")
                }
                try refused(plugin.call("ADD", "one", in: one.namespace), 7, "$.prevResult")
                try refused(
                    plugin.add(one, limits: ["ingressRate": 8000, "ingressBurst": 12104]), 7,
                    "no packet of \(one.hostEnd)'s MTU 1500 would ever pass: give it 12112 or more")
                try refused(
                    plugin.call("ADD", "one", in: one.namespace, previous: ["cniVersion": "1.1.0"]), 102,
                    "none of the interfaces without sandbox in prevResult is its peer")
                try refused(plugin.call("ADD", "one", in: "/nowhere", previous: one.wired), 102, "/nowhere")
                try refused(plugin.add(one) { $0["shapedSubnets"] = [] }, 2, "$.shapedSubnets")
                try plugin.expectNothing(one)

                try machine.command("tc qdisc add dev \(one.hostEnd) ingress")
                try refused(plugin.add(one), 102, "somebody else shapes \(one.hostEnd) already")
                #expect(try plugin.disciplines(one.hostEnd).map { $0["kind"] } == ["ingress"])
                #expect(try plugin.call("DEL", "one", in: one.namespace, previous: one.wired).isGood)
                #expect(try plugin.disciplines(one.hostEnd).map { $0["kind"] } == ["ingress"])
                try machine.command("tc qdisc del dev \(one.hostEnd) ingress")
                let theirs = "root handle 1: tbf rate 1mbit burst 10kb limit 20kb"
                try machine.command("tc qdisc add dev \(one.hostEnd) \(theirs)")
                try refused(plugin.add(one), 102, "somebody else shapes \(one.hostEnd) already")
                #expect(try plugin.disciplines(one.hostEnd).map { $0["handle"] } == ["1:"])
                #expect(try plugin.blocks() == [])
                #expect(try plugin.call("DEL", "one", in: one.namespace, previous: one.wired).isGood)
                #expect(try plugin.disciplines(one.hostEnd).map { $0["handle"] } == ["1:"])
                try machine.command("tc qdisc del dev \(one.hostEnd) root")

                // A device of our name that is somebody else's.
                #expect(try plugin.add(one).isGood)
                let block = try #require(try plugin.blocks().first)
                #expect(try plugin.call("DEL", "one", in: "").isGood)
                try machine.ip("link add name \(block) type ifb")
                try refused(plugin.add(one), 102, "not this container's")
                #expect(try plugin.call("DEL", "one", in: one.namespace, previous: one.wired).isGood)
                #expect(try plugin.call("GC", "", in: "") { $0["cni.dev/valid-attachments"] = [] }.isGood)
                #expect(try plugin.blocks() == [block])
            }
        }

        @Test(arguments: ["after_ifb", "after_redirection", "after_shaping", "before_result"])
        func `what a plugin leaves that is killed is found by DEL, by GC and by another ADD`(point: String)
            async throws
        {
            try await PrivateMachine.run { machine in
                let plugin = try BandwidthProgram(machine)
                let one = try plugin.container("one")
                for verb in ["DEL", "GC", "ADD"] {
                    let killed = try plugin.add(one, more: ["MARTLET_FAILPOINT=plugin.\(point)"])
                    #expect(killed.status == .signaled(SIGKILL))
                    #expect(try plugin.blocks().count == 1)
                    let cleaned =
                        switch verb {
                        case "DEL": try plugin.call("DEL", "one", in: one.namespace)
                        case "GC": try plugin.call("GC", "", in: "") { $0["cni.dev/valid-attachments"] = [] }
                        default: try plugin.add(one)
                        }
                    #expect(cleaned.isGood, "\(verb): \(cleaned.message)")
                    if verb == "ADD" {
                        #expect(try plugin.call("CHECK", "one", in: one.namespace, previous: cleaned.json).isGood)
                        #expect(try plugin.call("DEL", "one", in: one.namespace, previous: cleaned.json).isGood)
                    }
                    try plugin.expectNothing(one)
                }
            }
        }

        @Test func `GC takes what is not valid of its own network, STATUS tries out and leaves nothing`() async throws {
            try await PrivateMachine.run { machine in
                let plugin = try BandwidthProgram(machine)
                let (one, two, three) = (
                    try plugin.container("one"), try plugin.container("two"), try plugin.container("three")
                )
                for container in [one, two] { #expect(try plugin.add(container).isGood) }
                #expect(try plugin.add(three) { $0["name"] = "other" }.isGood)
                #expect(try plugin.blocks().count == 3)
                let collected = try plugin.call("GC", "", in: "") {
                    $0["cni.dev/valid-attachments"] = [["containerID": "one", "ifname": "eth0"]]
                }
                #expect(collected.isGood)
                #expect(try plugin.blocks().count == 2)
                #expect(try plugin.disciplines(one.hostEnd).count == 2)
                #expect(try plugin.disciplines(two.hostEnd) == [])
                #expect(try plugin.disciplines(three.hostEnd).count == 2)
                let devices = try machine.devices()
                let status = try plugin.call("STATUS", "", in: "")
                #expect(status.isGood, "\(status.message)")
                #expect(try machine.devices() == devices)
                #expect(try plugin.call("STATUS", "", in: "", limits: ["egressRate": 8]).code == 7)
                #expect(try plugin.call("VERSION", "", in: "").json["supportedVersions"]?.arrayValue?.count == 4)
            }
        }
    }
}
