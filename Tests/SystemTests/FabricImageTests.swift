import Glibc
import JSON
import Kernel
import Model
import Testing
import Wire

extension SystemSuite {
    @Suite("Images over several machines, and from a registry", .serialized)
    struct FabricImages {
        private func image(_ fabric: ClusterFabric, _ name: String) throws -> ImageView? {
            try fabric.decoded([ImageView].self, ["image", "ls", "--format", "json"]).first { view in
                view.names.contains { $0 == "\(name):latest" || $0.hasSuffix("/\(name)") }
            }
        }

        /// `martlet run --rm` on a node, printing a word.
        private func expectRuns(_ fabric: ClusterFabric, _ image: String, on node: Machine, _ flags: [String] = [])
            throws
        {
            let outcome = try fabric.run(
                ["run", "--rm", "--constraint", "node.name==\(node.name)"] + flags + [image, "echo", "it runs"])
            #expect(outcome.text == "it runs", "\(outcome)")
        }

        @Test("what is imported on one node runs on any, is kept on two, and outlives the node that had it")
        func copies() throws {
            try withFabric { fabric in
                let nodes = fabric.nodes
                try fabric.importImage("mine", on: nodes[0])
                try eventually("two nodes have it") { try image(fabric, "mine")?.nodes.count == 2 }
                for node in nodes { try expectRuns(fabric, "mine", on: node) }
                try expectSuccess(fabric.martlet("image", "prune"))
                #expect(try (image(fabric, "mine")?.nodes.count ?? 0) >= 2)

                try fabric.importImage("other", on: nodes[0])
                try eventually("two nodes have it") { try image(fabric, "other")?.nodes.count == 2 }
                try nodes[0].powerOff()
                try eventually("its node is known to be away", within: 60) {
                    try fabric.nodeViews().contains { view in
                        view.node.name == "n1" && !view.conditions.contains { $0.kind == .ready && $0.holds }
                    }
                }
                for node in nodes.dropFirst() { try expectRuns(fabric, "other", on: node) }
            }
        }

        @Test("save, load, tag and rm work on whatever node has the image; what is used is not removed")
        func archives() throws {
            try withFabric { fabric in
                let archive = fabric.folder + "/busybox.tar"
                try eventually("two nodes have it") { try image(fabric, "busybox")?.nodes.count == 2 }
                let holders = try #require(try image(fabric, "busybox")).nodes
                let third = try #require(try fabric.nodeViews().first { !holders.contains($0.node.id) }).node.name
                try expectSuccess(
                    fabric.martlet(
                        "run", "-d", "--name", "user", "--constraint", "node.name==\(third)", "busybox", "sleep", "1000"
                    ))
                let refused = try fabric.martlet("image", "rm", "busybox")
                #expect(refused.code == 1 && refused.errors.contains("container user on node \(third)"), "\(refused)")
                try eventually("its node is known to have a copy") { try image(fabric, "busybox")?.nodes.count == 3 }
                try expectSuccess(fabric.martlet("image", "save", "-o", archive, "busybox"))
                try expectSuccess(fabric.martlet("rm", "-f", "user"))
                try expectSuccess(fabric.martlet("tag", "busybox", "another:1"))
                try expectSuccess(fabric.martlet("image", "rm", "busybox", "another:1"))
                try eventually("no node has it") {
                    try fabric.decoded([ImageView].self, ["image", "ls", "--format", "json"]).isEmpty
                }
                #expect(try fabric.martlet("run", "--rm", "--pull", "never", "busybox", "true").code == 125)
                try expectSuccess(fabric.martlet("image", "load", "-i", archive))
                for node in fabric.nodes { try expectRuns(fabric, "busybox", on: node) }
            }
        }

        @Test("a name that is given anew means the new content on every node, which is copied; the old one stays")
        func renaming() throws {
            try withFabric { fabric in
                let nodes = fabric.nodes
                for (number, node) in [nodes[1], nodes[0], nodes[2]].enumerated() {
                    try expectSuccess(
                        fabric.martlet(
                            "image", "import", "--name", "app", "--env", "NUMBER=\(number)", "--node", node.name,
                            TestCluster.rootfs))
                    for node in nodes {
                        let outcome = try fabric.martlet(
                            "run", "--rm", "--constraint", "node.name==\(node.name)", "app", "sh", "-c", "echo $NUMBER")
                        #expect(outcome.text == "\(number)", "\(outcome)")
                    }
                    try eventually("two nodes have it") { try image(fabric, "app")?.nodes.count ?? 0 >= 2 }
                }
                let all = try fabric.decoded([ImageView].self, ["image", "ls", "--format", "json"])
                #expect(all.count { $0.names.contains("app:latest") } == 1)
                #expect(all.count { $0.names.isEmpty } == 2)

                // A node that is away meanwhile keeps the name only until it is back.
                try nodes[2].kill("agent")
                try expectSuccess(
                    fabric.martlet(
                        "image", "import", "--name", "app", "--env", "NUMBER=3", "--node", nodes[1].name,
                        TestCluster.rootfs))
                try fabric.startAgent(nodes[2])
                try eventually("the name means one thing") {
                    try fabric.decoded([ImageView].self, ["image", "ls", "--format", "json"])
                        .count { $0.names.contains("app:latest") } == 1
                }
                let outcome = try fabric.martlet(
                    "run", "--rm", "--constraint", "node.name==\(nodes[2].name)", "app", "sh", "-c", "echo $NUMBER")
                #expect(outcome.text == "3", "\(outcome)")

                // What has lost its name goes when it is asked for; a service without instances keeps its image.
                try expectSuccess(
                    fabric.martlet("service", "create", "--name", "later", "--replicas", "0", "app", "sleep", "1000"))
                try expectSuccess(
                    fabric.martlet(
                        "image", "import", "--name", "app", "--env", "NUMBER=4", "--node", nodes[0].name,
                        TestCluster.rootfs))
                try expectSuccess(fabric.martlet("image", "prune"))
                let left = try fabric.decoded([ImageView].self, ["image", "ls", "--format", "json"])
                #expect(left.count { $0.names.isEmpty } == 1, "\(left)")
                try expectSuccess(fabric.martlet("service", "scale", "later=3"))
                try expectSuccess(fabric.martlet("service", "wait", "later"))
                #expect(try fabric.martlet("exec", "later.1", "sh", "-c", "echo $NUMBER").text == "3")
            }
        }

        static let hasRegistry = File.exists("/usr/bin/docker-registry") && File.exists("/usr/bin/skopeo")

        @Test(
            "pull with a login, run on any node without the registry, push back",
            .enabled(if: hasRegistry, "needs docker-registry and skopeo"))
        func registry() throws {
            try withFabric { fabric in
                let machine = try fabric.addMachine("registry", number: 100)
                let host = "\(machine.address):5000"
                let registry = try fabric.startRegistry(on: machine)
                let archive = fabric.folder + "/busybox.tar"
                try expectSuccess(fabric.martlet("image", "save", "-o", archive, "busybox"))
                func skopeo(_ arguments: String...) throws -> Outcome {
                    try machine.run(["skopeo", "--insecure-policy"] + arguments)
                }
                for name in ["app:1", "app:2", "app:3"] {
                    try expectSuccess(
                        skopeo(
                            "copy", "--dest-tls-verify=false", "--dest-creds", "tester:secret",
                            "docker-archive:\(archive)",
                            "docker://\(host)/team/\(name)"))
                }
                let home = ["HOME=\(fabric.folder)/home"]
                func cli(_ arguments: String..., input: String = "") throws -> Outcome {
                    try fabric.run(arguments, input: Array(input.utf8), environment: home)
                }
                let app = "\(host)/team/app"
                let refused = try cli("pull", "\(app):1")
                #expect(refused.code == 1 && refused.errors.contains("martlet login"), "\(refused)")
                let login = ["login", "-u", "tester", "--password-stdin", host]
                let wrong = try fabric.run(login, input: Array("wrong\n".utf8), environment: home)
                #expect(wrong.code == 1 && wrong.errors.contains(host), "\(wrong)")
                try expectSuccess(fabric.run(login, input: Array("secret\n".utf8), environment: home))

                try expectSuccess(cli("pull", "\(app):1"))
                let missing = try cli("pull", "\(app):9")
                #expect(missing.code == 1 && missing.errors.contains("manifest 9 of team/app"), "\(missing)")
                // Pulled because it is missing, by whoever makes a container.
                #expect(try cli("run", "--rm", "\(app):2", "echo", "two").text == "two")
                let digest = try #require(try image(fabric, "team/app:1")).digest

                try expectSuccess(cli("tag", "\(app):1", "\(host)/team/back:1"))
                try expectSuccess(cli("push", "\(host)/team/back:1"))
                let seen = try skopeo(
                    "inspect", "--tls-verify=false", "--creds", "tester:secret", "--format", "{{.Digest}}",
                    "docker://\(host)/team/back:1")
                #expect(seen.text == digest, "\(seen)")

                try expectSuccess(
                    fabric.martlet(
                        "secret", "create", "registry", "-", input: #"{"username": "tester", "password": "secret"}"#))
                try expectSuccess(cli("logout", host))
                #expect(try cli("pull", "\(app):3").code == 1)
                try expectSuccess(cli("pull", "--login-secret", "registry", "\(app):3"))

                try registry.signal(SIGKILL)
                for node in fabric.nodes { try expectRuns(fabric, "\(app):1", on: node) }
                let always = try cli("run", "--rm", "--pull", "always", "\(app):1", "true")
                #expect(always.code == 125 && always.errors.contains(host), "\(always)")
                let gone = try cli("pull", "--login-secret", "registry", "\(app):2")
                #expect(gone.code == 1 && gone.errors.contains(host), "\(gone)")
            }
        }
    }
}

extension ClusterFabric {
    /// bcrypt of `secret`.
    private static let registryPassword = "$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a"

    /// Debian's registry, for whoever knows the password; plain HTTP, which the nodes' files allow.
    func startRegistry(on machine: Machine) throws -> ChildProcess {
        let configuration = machine.folder + "/config.yml"
        try File.replace(machine.folder + "/htpasswd", with: Array("tester:\(Self.registryPassword)\n".utf8))
        let lines = [
            "version: 0.1", "log: {level: error}",
            "storage: {filesystem: {rootdirectory: \(machine.folder)/storage}, delete: {enabled: true}}",
            "auth: {htpasswd: {realm: test, path: \(machine.folder)/htpasswd}}",
            "http: {addr: '0.0.0.0:5000'}",
        ]
        try File.replace(configuration, with: Array(lines.joined(separator: "\n").utf8))
        for node in nodes {
            let text = #"{"hosts": {"\#(machine.address):5000": {"plainHTTP": true}}}"#
            try File.replace(node.registriesFile, with: Array(text.utf8))
        }
        let process = try machine.begin(
            ["docker-registry", "serve", configuration], output: machine.folder + "/registry.log")
        try eventually("the registry answers") {
            try machine.run(["curl", "-s", "-o", "/dev/null", "http://\(machine.address):5000/v2/"]).code == 0
        }
        return process
    }
}
