import Glibc
import JSON
import Kernel
import Model
import Testing
import Wire

extension SystemSuite {
    @Suite("Groups, nodes and credentials: what is another's, and what has ended", .serialized)
    struct Groups {
        /// Two developers of two groups, and what the second one has.
        struct Bench {
            let fabric: ClusterFabric
            let alice: String
            let bob: String

            init(_ fabric: ClusterFabric) throws {
                self.fabric = fabric
                alice = try fabric.token("--role", "developer", "--group", "/a", "--name", "alice")
                bob = try fabric.token("--role", "developer", "--group", "/b", "--name", "bob")
                for (name, body) in [("secret", "secret"), ("config", "config")] {
                    try expectSuccess(try run(bob, name, "create", "bobs-\(body)", "-", input: "of bob"))
                }
                try expectSuccess(
                    try run(
                        bob, "run", "-d", "--name", "bobs", "-v", "bobs-data:/v", "--secret", "bobs-secret", "--config",
                        "bobs-config", "busybox", "sh", "-c", "echo written by bob >/v/x; echo hello; exec sleep 1000"))
                try expectSuccess(
                    try run(
                        bob, "service", "create", "--name", "bobs-service", "--replicas", "2", "busybox", "sleep",
                        "1000"
                    ))
                try expectSuccess(try run(bob, "volume", "create", "bobs-other"))
                try eventually("it has written") { try run(bob, "logs", "bobs").output == "hello\n" }
            }

            @discardableResult
            func run(_ token: String, _ arguments: String..., input: String = "") throws -> Outcome {
                try fabric.run(arguments, as: token, from: fabric.nodes[0], input: Array(input.utf8))
            }
        }

        @Test("what is another group's does not exist: not to see, not to enter, not to use, not to touch")
        func developers() throws {
            try withFabric(nodes: 2) { fabric in
                let bench = try Bench(fabric)
                let file = fabric.folder + "/file"
                try File.replace(file, with: [1])
                let view = try fabric.inspect("bobs")
                let instance = try #require(try fabric.containers(service: "bobs-service").first).name
                var tries: [[String]] = []
                for name in ["bobs", view.id.text, String(view.id.text.prefix(8)), instance] {
                    tries += [
                        ["inspect", name], ["logs", name], ["exec", name, "true"], ["attach", name], ["top", name],
                        ["stats", "--no-stream", name], ["cp", "\(name):/v/x", file], ["cp", file, "\(name):/v/x"],
                        ["stop", "-t", "0", name], ["kill", name], ["pause", name], ["restart", "-t", "0", name],
                        ["start", name], ["wait", name], ["rm", "-f", name],
                    ]
                }
                for verb in ["inspect", "ps", "logs", "rm"] { tries.append(["service", verb, "bobs-service"]) }
                tries += [
                    ["service", "scale", "bobs-service=1"], ["service", "update", "--env", "A=b", "bobs-service"],
                    ["secret", "inspect", "bobs-secret"], ["secret", "rm", "bobs-secret"],
                    ["config", "inspect", "bobs-config"], ["config", "rm", "bobs-config"],
                    ["volume", "inspect", "bobs-data"], ["volume", "rm", "bobs-other"],
                    ["run", "--rm", "--secret", "bobs-secret", "busybox", "cat", "/run/secrets/bobs-secret"],
                    ["run", "--rm", "--config", "bobs-config", "busybox", "cat", "/bobs-config"],
                ]
                for arguments in tries {
                    let outcome = try fabric.run(arguments, as: bench.alice, from: fabric.nodes[0])
                    #expect(outcome.code != 0 && outcome.errors.contains("there is no "), "\(outcome)")
                    #expect(!outcome.output.contains("of bob") && !outcome.output.contains("by bob"), "\(outcome)")
                }
                // What a name of an image means, for everybody, is not theirs to change; new names are.
                for arguments in [
                    ["image", "import", "--name", "busybox", TestCluster.rootfs],
                    ["tag", "busybox", "docker.io/library/busybox:latest"],
                ] {
                    let outcome = try fabric.run(arguments, as: bench.alice, from: fabric.nodes[0])
                    #expect(outcome.code != 0 && outcome.errors.contains("choose another name"), "\(outcome)")
                }
                try expectSuccess(try bench.run(bench.alice, "tag", "busybox", "alices"))
                // Names are the whole cluster's; what is behind them is not told.
                for arguments in [
                    ["run", "--rm", "-v", "bobs-data:/v", "busybox", "cat", "/v/x"],
                    ["run", "--rm", "-v", "bobs-other:/v", "busybox", "true"],
                    ["service", "create", "--name", "x", "-v", "bobs-data:/v", "busybox", "sleep", "1000"],
                    ["volume", "create", "bobs-data"], ["volume", "create", "bobs-other"],
                    ["volume", "create", "--group", "/b", "hers"],
                    ["secret", "create", "bobs-secret", file], ["secret", "create", "--group", "/b", "x", file],
                    ["run", "-d", "--group", "/b", "busybox", "true"],
                    ["run", "-d", "--name", "bobs", "busybox", "true"],
                ] {
                    let outcome = try fabric.run(arguments, as: bench.alice, from: fabric.nodes[0])
                    #expect(outcome.code != 0 && !outcome.output.contains("by bob"), "\(outcome)")
                }
                for arguments in [
                    ["ps", "-a", "-q"], ["service", "ls", "-q"], ["secret", "ls", "-q"], ["config", "ls", "-q"],
                    ["volume", "ls", "-q"],
                ] {
                    let outcome = try fabric.run(arguments, as: bench.alice, from: fabric.nodes[0])
                    #expect(outcome.code == 0 && outcome.output.isEmpty, "\(outcome)")
                    #expect(
                        try !fabric.run(arguments, as: bench.bob, from: fabric.nodes[0]).output.isEmpty, "\(arguments)")
                }
                // What concerns the nodes, or everybody.
                for arguments in [
                    ["events", "--since", "10m", "--until", "0s"], ["token", "ls"], ["node", "drain", "n1"],
                    ["image", "load", "-i", file], ["run", "-d", "--network", "host", "busybox", "true"],
                    ["run", "-d", "-v", "/etc:/x", "busybox", "true"],
                    ["run", "-d", "--cap-add", "SYS_ADMIN", "busybox", "true"],
                    ["run", "-d", "--device", "/dev/null", "busybox", "true"],
                    ["run", "-d", "--device", "vendor.com/class=x", "busybox", "true"],
                ] {
                    let outcome = try fabric.run(arguments, as: bench.alice, from: fabric.nodes[0])
                    let isSaid =
                        outcome.errors.contains("may not do this") || outcome.errors.contains("not allowed here")
                    #expect(outcome.code != 0 && isSaid, "\(outcome)")
                }
                try watches(bench)

                #expect(try fabric.inspect("bobs").container.pid == view.container.pid, "nothing of it was touched")
                #expect(try bench.run(bench.bob, "exec", "bobs", "cat", "/v/x").text == "written by bob")
                try expectSuccess(
                    try bench.run(
                        bench.bob, "run", "--rm", "-v", "bobs-other:/v", "--secret", "bobs-secret", "busybox", "true"))
            }
        }

        /// What is followed shows nothing of others either, while it changes.
        private func watches(_ bench: Bench) throws {
            let fabric = bench.fabric
            let caller = try Caller(.token(bench.alice), at: fabric.url, from: fabric.nodes[0])
            var files: [String] = []
            for what in ["containers", "services", "nodes"] {
                let file = "\(fabric.folder)/watch-\(what)"
                files.append(file)
                _ = try fabric.nodes[0].begin(
                    [
                        "curl", "-skN", "--max-time", "4", "-H", "Authorization: Bearer \(bench.alice)",
                        "\(caller.base)/api/v1/\(what)?watch=true",
                    ], output: file)
            }
            for file in files {
                try eventually("a watch has begun") { try File.text(file, limit: 1 << 20).contains("synced") }
            }
            try expectSuccess(try bench.run(bench.bob, "run", "--rm", "--name", "bobs-third", "busybox", "true"))
            try expectSuccess(try fabric.martlet("node", "cordon", "n2"))
            try eventually("the nodes are seen to change") {
                try File.text(files[2], limit: 1 << 20).contains("cordoned")
            }
            try expectSuccess(try fabric.martlet("node", "activate", "n2"))
            for file in files { #expect(try !File.text(file, limit: 1 << 20).contains("bobs"), "\(file)") }
        }

        @Test("with its own credentials a node gets nothing of another's, and speaks for nobody else")
        func nodes() throws {
            try withFabric(nodes: 2) { fabric in
                let (thief, victim) = (fabric.nodes[1], fabric.nodes[0])
                try expectSuccess(try fabric.martlet("secret", "create", "password", "-", input: "of the victim"))
                try expectSuccess(
                    fabric.martlet(
                        "run", "-d", "--name", "c", "--secret", "password", "--constraint", "node.name==n1", "busybox",
                        "sleep", "1000"))
                let task = try #require(try fabric.inspect("c").task).text
                let views = try fabric.nodeViews()
                let theirs = try #require(views.first { $0.node.name == "n1" }).node
                let own = try #require(views.first { $0.node.name == "n2" }).node
                let node = try Caller(.node(thief), at: fabric.url, from: thief)
                let root = "/api/v1/nodes"
                func expectRefusal(_ method: String, _ path: String, body: String? = nil, _ statuses: Set<Int> = [403])
                    throws
                {
                    let answer = try node.ask(method, path, body: body)
                    #expect(statuses.contains(answer.status), "\(method) \(path): \(answer.text)")
                    #expect(!answer.text.contains(theirs.id.text) || answer.status >= 400, "\(answer.text)")
                }
                func json(_ value: some Encodable) throws -> String {
                    String(decoding: try JSONCoding.encode(value), as: UTF8.self)
                }
                for name in [theirs.id.text, "n1"] {
                    try expectRefusal("GET", "\(root)/\(name)/tasks")
                    try expectRefusal("GET", "\(root)/\(name)/tasks?watch=true")
                    try expectRefusal("GET", "\(root)/\(name)/tasks/\(task)/secrets")
                    try expectRefusal("POST", "\(root)/\(name)/status", body: json(NodeReport(full: true)))
                    try expectRefusal(
                        "POST", "\(root)/\(name)/certificate", body: json(CertificateRequest(certificateRequest: "x")))
                }
                try expectRefusal("GET", "\(root)/\(own.id)/tasks/\(task)/secrets")
                try expectRefusal("GET", "\(root)/\(own.id)%2f..%2f\(theirs.id)/tasks")
                // Under the other's name, with an id of its own choice, and with a door to the master's machine.
                try expectRefusal("POST", root, body: json(NodeRegistration(node: theirs)))
                var renamed = own
                renamed.name = "n1"
                try expectRefusal("POST", root, body: json(NodeRegistration(node: renamed)), [409])
                var door = own
                door.streamEndpoint = "unix:\(fabric.master.runDirectory)/martlet.sock"
                try expectRefusal("POST", root, body: json(NodeRegistration(node: door)))
                try expectRefusal(
                    "POST", "\(root)/join",
                    body: json(NodeJoin(registration: NodeRegistration(node: theirs), certificateRequest: "x")))
                // It may say what it likes of others' tasks: that is not taken from it.
                let lie = NodeReport.TaskReport(
                    task: TaskID(task), instance: InstanceID("x"), epoch: 1, status: TaskStatus(phase: .removed))
                #expect(
                    try node.ask("POST", "\(root)/\(own.id)/status", body: json(NodeReport(tasks: [lie]))).status == 204
                )
                #expect(try fabric.inspect("c").status.phase == .running)
                for path in ["containers", "secrets", "configs", "tokens", "events", "nodes", "volumes"] {
                    try expectRefusal("GET", "/api/v1/\(path)")
                }
                let peer = try Caller(.node(thief), at: "https://\(victim.address):7071", from: thief)
                for path in [
                    "tasks/\(task)/logs", "tasks/\(task)/archive?path=/run/secrets/password", "volumes", "images",
                ] {
                    #expect(try peer.ask("GET", "/node/v1/\(path)").status == 403, "\(path)")
                }
                #expect(try peer.ask("POST", "/node/v1/tasks/\(task)/exec?spec=%7B%7D").status == 403)
            }
        }

        @Test("a node that was removed is nobody: not to the master, and not to the other nodes")
        func removed() throws {
            try withFabric(nodes: 2) { fabric in
                let gone = fabric.nodes[1]
                let digest = try #require(
                    try fabric.decoded([ImageView].self, ["image", "ls", "--format", "json"]).first
                ).digest
                let content = "/node/v1/content/blobs/\(digest)"
                let peer = try Caller(.node(gone), at: "https://\(fabric.nodes[0].address):7071", from: gone)
                try eventually("content is given to a node") { try peer.ask("GET", content).status == 200 }
                // A watch that is open when it is removed ends with it.
                let own = try #require(try fabric.nodeViews().first { $0.node.name == "n2" }).node.id
                try gone.kill("agent")
                let master = try Caller(.node(gone), at: fabric.url, from: gone)
                #expect(try master.ask("GET", "/api/v1/nodes/\(own)/tasks").status == 200)
                let watch = try gone.begin([
                    "curl", "-skN", "--cert", "\(gone.folder)/caller/n2.certificate", "--key",
                    "\(gone.folder)/caller/n2.key", "\(fabric.url)/api/v1/nodes/\(own)/tasks?watch=true",
                ])
                try eventually("it is silent for long enough", within: 60) {
                    try fabric.martlet("node", "rm", "--force", "n2").code == 0
                }
                try eventually("its watch is cut") { try watch.poll() != nil }
                #expect(try master.ask("GET", "/api/v1/nodes/\(own)/tasks").status == 401)
                try eventually("the other node has heard of it") { try peer.ask("GET", content).status == 401 }
            }
        }

        @Test("what is open with a token ends with it: a log that is followed, a session, a watch")
        func revoked() throws {
            try withFabric(nodes: 1) { fabric in
                try expectSuccess(
                    try fabric.martlet(
                        "run", "-d", "--name", "c", "busybox", "sh", "-c", "while :; do echo tick; sleep 1; done"))
                let (node, other) = (fabric.nodes[0], try fabric.token("--role", "operator"))
                // The file that is there once the program has ended.
                func begin(_ token: String, _ arguments: String...) throws -> String {
                    let file = "\(fabric.folder)/ended-\(token.suffix(80).prefix(8))-\(arguments[0])"
                    _ = try node.begin(
                        ["sh", "-c", "\"$@\"; echo $? >\(file)", "sh", TestCluster.martlet] + arguments,
                        environment: ["MARTLET_HOST=\(fabric.url)", "MARTLET_TOKEN=\(token)"])
                    return file
                }
                let stays = try begin(other, "logs", "-f", "c")
                for isRevoked in [true, false] {
                    let token = try fabric.token(
                        "--role", "operator", "--expires", isRevoked ? "1h" : "8s")
                    let open = try [
                        begin(token, "logs", "-f", "c"),
                        begin(token, "exec", "c", "sleep", isRevoked ? "1001" : "1002"),
                        begin(token, "events"), begin(token, "wait", "c"),
                    ]
                    try eventually("the session is there") {
                        try fabric.martlet("top", "c").output.contains(isRevoked ? "sleep 1001" : "sleep 1002")
                    }
                    for file in open { #expect(!File.exists(file), "\(file)") }
                    if isRevoked {
                        try expectSuccess(
                            try fabric.martlet("token", "revoke", String(token.split(separator: ".")[1])))
                    }
                    for file in open { try eventually("\(file)") { File.exists(file) } }
                    #expect(!File.exists(stays), "another's goes on")
                }
            }
        }
    }
}
