import Glibc
import JSON
import Kernel
import Model
import Testing
import Wire

extension SystemSuite {
    @Suite("The command line over several machines", .serialized)
    struct Fabric {
        /// Numbers that are the same each time.
        struct Dice: RandomNumberGenerator {
            var state: UInt64

            mutating func next() -> UInt64 {
                state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
                return state ^ (state >> 29)
            }
        }

        @Test("the fabric itself: what is cut does not pass, in one direction or both; a reboot is one")
        func machines() throws {
            try withFabric { fabric in
                let nodes = fabric.nodes
                func reaches(_ from: Machine, _ to: Machine) throws -> Bool {
                    try from.run([
                        "curl", "-sk", "--max-time", "1", "-o", "/dev/null", "https://\(to.address):7070/healthz",
                    ]).code == 0
                }
                #expect(try reaches(nodes[0], fabric.master))
                try fabric.partition(nodes[0])
                #expect(try !reaches(nodes[0], fabric.master) && reaches(nodes[1], fabric.master))
                try fabric.heal(nodes[0])
                #expect(try reaches(nodes[0], fabric.master))
                // A datagram tells one direction from the other.
                func hears(_ machine: Machine, from other: Machine) throws -> Bool {
                    let file = machine.folder + "/heard"
                    try Tree.remove(file)
                    let listener = try machine.begin([
                        "python3", "-c",
                        "import socket; s = socket.socket(2, 2); s.bind(('', 9)); open('\(file).on', 'w'); s.settimeout(1);"
                            + " s.recv(9); open('\(file)', 'w')",
                    ])
                    try eventually("somebody listens") { File.exists("\(file).on") }
                    try expectSuccess(
                        other.run([
                            "python3", "-c",
                            "import socket; socket.socket(2, 2).sendto(b'x', ('\(machine.address)', 9))",
                        ]))
                    _ = try listener.wait()
                    try Tree.remove("\(file).on")
                    return File.exists(file)
                }
                try fabric.cut(from: nodes[0], to: nodes[1])
                #expect(try !hears(nodes[1], from: nodes[0]))
                try fabric.heal()
                // Neighbours are known from now on; only then a datagram needs no answer.
                #expect(try hears(nodes[1], from: nodes[0]) && hears(nodes[0], from: nodes[1]))
                try fabric.cut(to: nodes[0])
                #expect(try !hears(nodes[0], from: nodes[1]) && hears(nodes[1], from: nodes[0]))
                try fabric.heal()

                let boot = try nodes[2].run(["cat", "/proc/sys/kernel/random/boot_id"]).text
                try expectSuccess(
                    fabric.martlet(
                        "run", "-d", "--name", "c", "--constraint", "node.name==n3", "--restart", "always", "busybox",
                        "sleep", "1000"))
                let pid = try fabric.inspect("c").container.pid
                try fabric.reboot(nodes[2])
                #expect(try nodes[2].run(["cat", "/proc/sys/kernel/random/boot_id"]).text != boot)
                #expect(try Proc.stat(pid_t(pid))?.hasEnded ?? true)
                try fabric.startAgent(nodes[2])
                try eventually("it is started again") {
                    let view = try fabric.inspect("c")
                    return view.status.phase == .running && view.container.pid != pid
                }
            }
        }

        /// The CLI as somebody uses it, from somewhere.
        struct CLI {
            let fabric: ClusterFabric
            var token: String?
            var machine: Machine?

            @discardableResult
            func callAsFunction(_ arguments: String..., input: String = "") throws -> Outcome {
                guard let token, let machine else { return try fabric.run(arguments, input: Array(input.utf8)) }
                return try fabric.run(arguments, as: token, from: machine, input: Array(input.utf8))
            }
        }

        @Test("containers on every node: run, ps, logs, exec, attach, cp, stats, top, wait, stop, restart, rm")
        func containers() throws {
            try withFabric { fabric in
                let token = try fabric.token("--role", "operator")
                for (index, node) in fabric.nodes.enumerated() {
                    // The first from the master's machine, the others over the network from one that has neither part.
                    let other = fabric.nodes[(index + 1) % 3]
                    let cli = index == 0 ? CLI(fabric: fabric) : CLI(fabric: fabric, token: token, machine: other)
                    try life(cli, on: node)
                }
                let kinds = try fabric.martlet(
                    "events", "--since", "10m", "--until", "0s", "--filter", "kind=container")
                for word in ["create", "start", "die", "destroy"] { #expect(kinds.output.contains(word), "\(word)") }
                #expect(try fabric.containers().isEmpty)
            }
        }

        private func life(_ cli: CLI, on node: Machine) throws {
            let place = ["--constraint", "node.name==\(node.name)"]
            let foreground = try cli(
                "run", "--rm", place[0], place[1], "busybox", "sh", "-c", "echo out; echo err >&2; exit 7")
            #expect(foreground.code == 7 && foreground.output == "out\n" && foreground.errors == "err\n")

            try expectSuccess(
                cli(
                    "run", "-d", "--name", "one", place[0], place[1], "busybox", "sh", "-c",
                    "echo begun; while [ ! -e /tmp/end ]; do sleep 0.1; done; echo ended; exit 3"))
            #expect(try cli("ps", "--format", "{{.Name}} {{.Node}}").text == "one \(node.name)")
            let inspected = try JSONCoding.decode(
                [ContainerView].self, from: Array(cli("inspect", "one").output.utf8))
            let pid = try #require(inspected.first).container.pid
            #expect(node.processes.contains(pid_t(pid)), "it is where the master says")
            try eventually("its output is in the log") { try cli("logs", "one").output == "begun\n" }
            #expect(try cli("exec", "one", "sh", "-c", "exit 5").code == 5)
            #expect(try cli("exec", "-i", "one", "tr", "a", "b", input: "banana\n").output == "bbnbnb\n")

            let file = node.folder + "/sent"
            try File.replace(file, with: Array(repeating: 7, count: 300_000))
            try expectSuccess(cli("cp", file, "one:/tmp/sent"))
            try expectSuccess(cli("cp", "one:/tmp/sent", file + ".back"))
            #expect(try File.read(file + ".back") == File.read(file))
            #expect(try cli("stats", "--no-stream", "--format", "{{.Name}}").text == "one")
            #expect(try cli("top", "one").output.contains("sleep 0.1"))

            // Followed until its end, by two who wait for it.
            try expectSuccess(cli("exec", "one", "sh", "-c", "(sleep 0.5; touch /tmp/end) >/dev/null 2>&1 &"))
            #expect(try cli("logs", "-f", "one").output == "begun\nended\n")
            #expect(try cli("wait", "one").text == "3")

            try expectSuccess(
                cli(
                    "run", "-d", "-i", "--name", "two", place[0], place[1], "busybox", "sh", "-c", "read x; echo got $x"
                ))
            #expect(try cli("attach", "two", input: "this\n").output.contains("got this"))

            try expectSuccess(cli("run", "-d", "--name", "three", place[0], place[1], "busybox", "sleep", "1000"))
            try expectSuccess(cli("pause", "three"))
            #expect(try cli("ps", "--format", "{{.Status}}", "-f", "name=three").output.lowercased().contains("paused"))
            try expectSuccess(cli("unpause", "three"))
            try expectSuccess(cli("restart", "-t", "0", "three"))
            try expectSuccess(cli("stop", "-t", "0", "three"))
            try expectSuccess(cli("start", "three"))
            #expect(try cli("rm", "three").code == 1, "it runs")
            try expectSuccess(cli("kill", "three"))
            try expectSuccess(cli("wait", "three"))
            try expectSuccess(cli("rm", "one", "two", "three"))
        }

        @Test("a service over all nodes: spread, scaled, updated, its logs and events; gone from all when removed")
        func service() throws {
            try withFabric { fabric in
                try expectSuccess(
                    fabric.martlet(
                        "service", "create", "--name", "web", "--replicas", "6", "--update-parallelism", "3",
                        "--stop-timeout", "0", "busybox", "sh", "-c", "echo here; exec sleep 1000"))
                try expectSuccess(fabric.martlet("service", "wait", "web"))
                #expect(try counts(fabric, "web") == [2, 2, 2])
                try expectSuccess(fabric.martlet("service", "scale", "web=9"))
                try expectSuccess(fabric.martlet("service", "wait", "web"))
                #expect(try counts(fabric, "web") == [3, 3, 3])
                try eventually("all have written") {
                    try fabric.martlet("service", "logs", "web").output.split(separator: "\n").count == 9
                }
                let ids = Set(try fabric.containers(service: "web").map(\.id))
                try expectSuccess(fabric.martlet("service", "update", "--env", "COLOUR=blue", "web"))
                try expectSuccess(fabric.martlet("service", "wait", "web"))
                let updated = try fabric.containers(service: "web")
                #expect(updated.allSatisfy { $0.revision == 2 } && Set(updated.map(\.id)) == ids)
                for number in 1...9 {
                    #expect(try fabric.martlet("exec", "web.\(number)", "sh", "-c", "echo $COLOUR").text == "blue")
                }
                try expectSuccess(
                    fabric.martlet(
                        "service", "create", "--name", "each", "--mode", "global", "busybox", "sleep", "1000"))
                try expectSuccess(fabric.martlet("service", "wait", "each"))
                #expect(try counts(fabric, "each") == [1, 1, 1])
                try expectSuccess(fabric.martlet("service", "rm", "-f", "web", "each"))
                try eventually("nothing of them is left") { try fabric.containers().isEmpty }
                for node in fabric.nodes { #expect(try File.list(node.dataDirectory + "/tasks").isEmpty) }
            }
        }

        /// A service's instances on each node, the fewest first.
        private func counts(_ fabric: ClusterFabric, _ service: String) throws -> [Int] {
            let views = try fabric.containers(service: service)
            return fabric.nodes.map { node in views.count { $0.nodeName == node.name } }.sorted()
        }

        @Test("after many arrivals and departures a spread service's counts differ by at most one")
        func spread() throws {
            try withFabric { fabric in
                var dice = Dice(state: 11)
                var scales = ["a": 1, "b": 1]
                var alone: [String] = []
                for name in scales.keys.sorted() {
                    try expectSuccess(
                        fabric.martlet(
                            "service", "create", "--name", name, "--strategy", "spread", "--stop-timeout", "0",
                            "busybox",
                            "sleep", "100000"))
                }
                for round in 0..<loops(200) {
                    switch Int.random(in: 0..<4, using: &dice) {
                    case 0 where !alone.isEmpty:
                        let name = alone.remove(at: Int.random(in: 0..<alone.count, using: &dice))
                        try expectSuccess(fabric.martlet("rm", "-f", name))
                    case 1 where alone.count < 6:
                        alone.append("c\(round)")
                        try expectSuccess(
                            fabric.martlet("run", "-d", "--name", "c\(round)", "busybox", "sleep", "100000"))
                    case let which:
                        let name = which % 2 == 0 ? "a" : "b"
                        scales[name] = Int.random(in: 1...9, using: &dice)
                        try expectSuccess(fabric.martlet("service", "scale", "\(name)=\(scales[name] ?? 1)"))
                    }
                }
                for (name, count) in scales {
                    try expectSuccess(fabric.martlet("service", "wait", name))
                    try eventually("\(name) is spread evenly", within: 120) {
                        let counts = try counts(fabric, name)
                        return counts.reduce(0, +) == count && counts[2] - counts[0] <= 1
                    }
                }
            }
        }

        @Test(
            "a volume is where its container is: listed from everywhere, tied to its node, explained when it cannot be")
        func volumes() throws {
            try withFabric { fabric in
                for node in fabric.nodes {
                    try expectSuccess(
                        fabric.martlet(
                            "run", "--rm", "-v", "of-\(node.name):/v", "--constraint", "node.name==\(node.name)",
                            "busybox",
                            "sh", "-c", "echo \(node.name) >/v/x"))
                }
                let views = try fabric.decoded([VolumeView].self, ["volume", "ls", "--format", "json"])
                let names = try Dictionary(uniqueKeysWithValues: fabric.nodeViews().map { ($0.node.id, $0.node.name) })
                #expect(
                    Set(views.map { "\($0.name) on \(names[$0.node] ?? "")" })
                        == ["of-n1 on n1", "of-n2 on n2", "of-n3 on n3"])
                // Whoever mounts it comes to it, wherever else there is room.
                for _ in 0..<2 {
                    for node in fabric.nodes {
                        #expect(
                            try fabric.martlet("run", "--rm", "-v", "of-\(node.name):/v", "busybox", "cat", "/v/x").text
                                == node.name)
                    }
                }
                try expectSuccess(
                    fabric.martlet(
                        "service", "create", "--name", "torn", "-v", "of-n1:/v", "--constraint", "node.name==n2",
                        "busybox", "sleep", "1000"))
                try eventually("it says why not") {
                    let text = try fabric.martlet("service", "ps", "torn").output
                    return text.contains("of-n1") && text.contains("n1")
                }
                try expectSuccess(fabric.martlet("service", "rm", "torn"))
                try eventually("nothing holds it") { try fabric.containers().isEmpty }
                try expectSuccess(fabric.martlet("volume", "rm", "of-n1", "of-n2"))
                #expect(try fabric.martlet("volume", "ls", "-q").text == "of-n3")
            }
        }
    }
}
