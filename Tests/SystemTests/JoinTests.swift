import Glibc
import JSON
import Kernel
import Model
import Testing
import Wire

extension SystemSuite {
    @Suite("Who may join, and who may go on", .serialized)
    struct Joining {
        /// An agent that is refused ends, with words that say why; nothing of it is in the cluster.
        private func expectRefusal(
            _ fabric: ClusterFabric, _ node: Machine, token: String?, _ words: String,
            sourceLocation: SourceLocation = #_sourceLocation
        ) throws {
            let known = try fabric.nodeViews().count
            let outcome = try fabric.agent(node, token: token)
            #expect(outcome.code == 1 && outcome.errors.contains(words), "\(outcome)", sourceLocation: sourceLocation)
            if let secret = token?.split(separator: ".").dropFirst(2).first {
                #expect(!outcome.errors.contains(secret), "the token is not repeated", sourceLocation: sourceLocation)
            }
            #expect(try !node.isRunning("agent") && fabric.nodeViews().count == known, sourceLocation: sourceLocation)
        }

        @Test(
            "no token but one that is meant for it lets a machine join: expired, revoked, used up, tampered, a user's")
        func refusals() throws {
            let fabric = try ClusterFabric(nodes: 3)
            defer { fabric.tearDown() }
            try fabric.startMaster()
            let node = fabric.nodes[0]
            try expectRefusal(fabric, node, token: nil, "give --join TOKEN")
            try expectRefusal(fabric, node, token: "mlt1.x", "this is no token")

            let short = try fabric.token("--expires", "1s")
            let good = try fabric.token("--uses", "1", "--name", "once")
            let parts = good.split(separator: ".").map(String.init)
            for index in 1..<4 {
                var tampered = parts
                tampered[index] = (parts[index].hasPrefix("a") ? "b" : "a") + parts[index].dropFirst()
                try expectRefusal(
                    fabric, node, token: tampered.joined(separator: "."),
                    index == 3 ? "the authority that the token pins" : "the token does not count")
            }
            // Another version, a part more or less.
            for text in ["mlt2." + parts.dropFirst().joined(separator: "."), good + ".x", String(good.dropLast())] {
                try expectRefusal(fabric, node, token: text, "this is no token")
            }
            for role in ["admin", "operator", "developer", "viewer"] {
                let flags = role == "developer" ? ["--group", "/shop"] : []
                let outcome = try fabric.run(["token", "create", "-q", "--role", role] + flags)
                try expectRefusal(fabric, node, token: outcome.text, "a token of the role \(role) may not do this")
            }
            let revoked = try fabric.token()
            try expectSuccess(fabric.martlet("token", "revoke", String(revoked.split(separator: ".")[1])))
            try expectRefusal(fabric, node, token: revoked, "the token does not count")
            try eventually("the token runs out") {
                try fabric.martlet("token", "ls").output.contains("expired")
            }
            try expectRefusal(fabric, node, token: short, "the token does not count")

            try expectSuccess(fabric.agent(node, token: good))
            try expectRefusal(fabric, fabric.nodes[1], token: good, "has been used 1 time")
            // It opens nothing else either.
            for arguments in [["ps"], ["node", "ls"], ["token", "ls"], ["run", "-d", "busybox", "true"]] {
                let outcome = try fabric.run(arguments, as: good, from: node)
                #expect(outcome.code != 0 && outcome.errors.contains("a token for joining"), "\(outcome)")
            }
            // The name of a node is its own.
            let other = fabric.nodes[1]
            let taken = try fabric.agent(other, token: fabric.token(), ["--node-name", "n1"])
            #expect(taken.code == 1 && taken.errors.contains("n1"), "\(taken)")
            try expectSuccess(fabric.agent(other, token: fabric.token()))
            #expect(try fabric.nodeViews().count == 2)
            let listed = try fabric.martlet("token", "ls").output
            #expect(listed.contains("1/1") && !listed.contains(parts[2]))
        }

        @Test("a token of one cluster opens no other, nor does a node's certificate")
        func otherCluster() throws {
            let fabric = try ClusterFabric(nodes: 2)
            defer { fabric.tearDown() }
            try fabric.startMaster()
            let second = fabric.nodes[1]
            try expectSuccess(
                second.martlet(["master", "--detach", "--advertise", second.address] + second.placeFlags))
            let foreign = try second.martlet(
                ["token", "create", "-q"], environment: ["MARTLET_HOST=\(second.socket)"]
            ).text
            try expectRefusal(fabric, fabric.nodes[0], token: foreign, "the authority that the token pins")

            // A node of the first is none of the second.
            try fabric.join(fabric.nodes[0])
            try fabric.nodes[0].kill("agent")
            let elsewhere = try fabric.nodes[0].martlet(
                ["agent", "--detach", "--master", "https://\(second.address):7070"]
                    + fabric.nodes[0].placeFlags + fabric.nodes[0].nodeFlags)
            // It goes on trying, as it would were the clock of one of them wrong.
            #expect(elsewhere.code == 1 && elsewhere.errors.contains("certificate"), "\(elsewhere)")
            #expect(fabric.nodes[0].isRunning("agent"))
            try fabric.nodes[0].kill("agent")
            try fabric.startAgent(fabric.nodes[0])
        }

        @Test("of a data directory that was copied only one goes on, and which one is clear")
        func clone() throws {
            let fabric = try ClusterFabric(nodes: 2)
            defer { fabric.tearDown() }
            try fabric.startMaster()
            let (original, copy) = (fabric.nodes[0], fabric.nodes[1])
            try fabric.join(original)
            try expectSuccess(copy.run(["cp", "-a", original.dataDirectory, copy.dataDirectory]))
            // While the original runs.
            try expectRefusal(fabric, copy, token: nil, "a machine that was cloned")
            try expectRefusal(fabric, copy, token: fabric.token(), "a machine that was cloned")
            #expect(original.isRunning("agent"))
            #expect(try fabric.nodeViews().count == 1)
            // After it has gone on, and while it is away.
            try original.kill("agent")
            try fabric.startAgent(original)
            try original.kill("agent")
            try expectRefusal(fabric, copy, token: nil, "has gone on with another copy")
            try fabric.startAgent(original)

            // With a data directory of its own it is welcome.
            try Tree.remove(copy.dataDirectory)
            try expectSuccess(fabric.agent(copy, token: fabric.token()))
            #expect(try fabric.nodeViews().count == 2)
        }

        @Test("a node that was removed comes back with a new data directory and a token only")
        func removed() throws {
            try withFabric(nodes: 2) { fabric in
                let node = fabric.nodes[1]
                #expect(try fabric.martlet("node", "rm", "n2").code == 1, "it is connected")
                try node.signal("agent", SIGSTOP)
                try eventually("it counts as gone", within: 60) {
                    try fabric.martlet("node", "rm", "--force", "n2").code == 0
                }
                try node.signal("agent", SIGCONT)
                try eventually("its agent ends") { !node.isRunning("agent") }
                #expect(node.log("agent").contains("was removed from the cluster"))
                try expectRefusal(fabric, node, token: nil, "was removed from the cluster")
                try Tree.remove(node.dataDirectory)
                try expectSuccess(fabric.agent(node, token: fabric.token()))
                #expect(try fabric.nodeViews().count == 2)
            }
        }

        @Test("`up` becomes a cluster while it runs: no daemon and no container is started again")
        func enable() throws {
            let fabric = try ClusterFabric(nodes: 1)
            defer { fabric.tearDown() }
            let master = fabric.master
            try expectSuccess(
                master.martlet(["up", "--detach", "--node-name", "first"] + master.placeFlags + master.nodeFlags))
            try fabric.importImage()
            let refused = try fabric.martlet("token", "create")
            #expect(refused.code == 1 && refused.errors.contains("martlet cluster enable"), "\(refused)")
            try expectSuccess(fabric.martlet("run", "-d", "--name", "c", "busybox", "sleep", "1000"))
            let (before, daemon) = (try fabric.inspect("c"), try master.pid(of: "up"))

            try expectSuccess(fabric.martlet("cluster", "enable", "--advertise", master.address))
            try fabric.join(fabric.nodes[0])
            #expect(try fabric.nodeViews().count == 2)
            // Fetched from the first, streamed to the second.
            #expect(
                try fabric.martlet("run", "--rm", "--constraint", "node.name==n1", "busybox", "echo", "hi").text == "hi"
            )
            let after = try fabric.inspect("c")
            #expect(after.container.pid == before.container.pid && after.container.start == 1)
            #expect(try master.pid(of: "up") == daemon && master.isRunning("up"))

            // It stays one over a restart.
            try master.kill("up")
            try expectSuccess(master.martlet(["up", "--detach"] + master.placeFlags + master.nodeFlags))
            try eventually("both are ready") {
                try fabric.nodeViews().filter { view in
                    view.conditions.contains { $0.kind == .ready && $0.holds }
                }.count == 2
            }
            #expect(try fabric.inspect("c").container.pid == before.container.pid)
        }

        @Test("certificates are renewed while everything goes on; one that has run out takes a token")
        func renewal() throws {
            let fabric = try ClusterFabric(nodes: 2)
            defer { fabric.tearDown() }
            try fabric.startMaster(["--certificate-life", "12"])
            for node in fabric.nodes { try fabric.join(node) }
            try fabric.importImage()
            try expectSuccess(
                fabric.martlet(
                    "run", "-d", "--name", "c", "--constraint", "node.name==n1", "busybox", "sh", "-c",
                    "while :; do echo tick; sleep 1; done"))
            let pid = try fabric.inspect("c").container.pid
            let output = fabric.folder + "/followed"
            let follower = try fabric.begin(["logs", "-f", "c"], output: output)
            func certificate(_ node: Machine) throws -> String {
                try File.text(node.dataDirectory + "/identity/credentials.json", limit: 1 << 16)
            }
            var seen: Set<String> = []
            try eventually("three certificates have been in use", within: 60) {
                seen.insert(try certificate(fabric.nodes[0]))
                return seen.count >= 3
            }
            #expect(try fabric.inspect("c").container.pid == pid)
            #expect(try follower.poll() == nil)
            let lines = try File.text(output).split(separator: "\n").count
            try eventually("the stream goes on") { try File.text(output).split(separator: "\n").count > lines }
            #expect(try fabric.martlet("exec", "c", "echo", "hi").text == "hi")
            // From one to the other: content between nodes.
            #expect(
                try fabric.martlet("run", "--rm", "--constraint", "node.name==n2", "busybox", "echo", "hi").text == "hi"
            )
            try follower.signal(SIGKILL)
            _ = try follower.wait()

            let node = fabric.nodes[0]
            try node.kill("agent")
            // Longer than it lives.
            sleep(13)
            let refused = try fabric.agent(node, token: nil)
            #expect(refused.errors.contains("ran out") && refused.errors.contains("token"), "\(refused)")
            try expectSuccess(fabric.agent(node, token: fabric.token()))
            #expect(try fabric.inspect("c").container.pid == pid, "the container has gone on")
            #expect(try fabric.nodeViews().count == 2)
        }
    }
}
