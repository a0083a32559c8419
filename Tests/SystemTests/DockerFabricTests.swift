import Glibc
import JSON
import Kernel
import Model
import Testing
import Wire

extension SystemSuite {
    @Suite(
        "The docker command line and a cluster of three nodes", .serialized,
        .disabled(if: DockerClient.isMissing, "needs docker and dockerd: scripts/setup.sh test installs docker.io"))
    struct DockerFabric {
        /// `docker` at the master's socket.
        private struct Docker {
            let side: DockerSide
            let client: DockerClient

            init(_ fabric: ClusterFabric, _ client: DockerClient) {
                side = DockerSide(
                    host: "unix://\(fabric.master.runDirectory)/martlet.sock", folder: fabric.folder + "/session",
                    machine: nil)
                self.client = client
            }

            /// Runs a line of shell that has to succeed, and gives what it prints.
            @discardableResult
            func callAsFunction(_ line: String, sourceLocation: SourceLocation = #_sourceLocation) throws -> String {
                let outcome = try side.run(line, client: client)
                try #require(
                    outcome.code == 0, "`\(line)` ends with \(outcome.code): \(outcome.errors)\(outcome.output)",
                    sourceLocation: sourceLocation)
                return outcome.output.hasSuffix("\n") ? String(outcome.output.dropLast()) : outcome.output
            }
        }

        @Test("run spreads; exec, attach, logs, cp, stats, top and commit reach any node", arguments: DockerClient.all)
        func anyNode(_ client: DockerClient) throws {
            try withFabric { fabric in
                let docker = Docker(fabric, client)
                for number in 1...6 {
                    try docker(
                        """
                        docker run -dit --name c\(number) busybox sh -c \
                        'echo begun; while read line; do echo "heard $line"; done'
                        """)
                }
                let places = try docker("docker inspect -f '{{.Node.Name}}' c1 c2 c3 c4 c5 c6").split(separator: "\n")
                for node in fabric.nodes { #expect(places.count { $0 == node.name } == 2, "\(places)") }
                #expect(try docker("docker ps -q").split(separator: "\n").count == 6)
                for node in fabric.nodes {
                    #expect(
                        try docker("docker ps -q --filter node=\(node.name)").split(separator: "\n").count == 2)
                }
                for name in ["c1", "c2", "c3"] {
                    #expect(try docker("docker exec \(name) sh -c 'echo $((6 * 7)); exit 0'") == "42")
                    #expect(
                        try docker(
                            "(sleep 1; echo word; sleep 1; printf '\\020\\021') | script -qec 'docker attach \(name)' /dev/null || true"
                        ).contains("heard word"))
                    try eventually("what it said is in the log") {
                        try docker("docker logs \(name)").contains("heard word")
                    }
                    #expect(try docker("docker logs --tail 1 \(name)") != "begun")
                    try docker("echo from outside >file && docker cp file \(name):/tmp/file")
                    #expect(try docker("docker exec \(name) cat /tmp/file") == "from outside")
                    #expect(try docker("docker cp \(name):/tmp/file - | tar xOf -") == "from outside")
                    #expect(
                        try docker("docker stats --no-stream --format '{{.Name}} {{.PIDs}}' \(name)").contains(name))
                    #expect(try docker("docker top \(name)").contains("while read"))
                    #expect(try docker("docker diff \(name)").contains("A /tmp/file"))
                    try docker("docker commit \(name) made:\(name)")
                    #expect(try docker("docker run --rm made:\(name) cat /tmp/file") == "from outside")
                }
                #expect(
                    try docker("docker run --rm -e constraint:node==n2 busybox sh -c 'env | grep -c constraint'; true")
                        == "0")
                try docker("docker run -d --name near -e affinity:container==c1 busybox sleep 1000")
                #expect(
                    try docker("docker inspect -f '{{.Node.Name}}' c1")
                        == docker(
                            "docker inspect -f '{{.Node.Name}}' near"))
                let refused = try docker.side.run(
                    "docker run --rm -e constraint:node==nowhere busybox true", client: client)
                #expect(refused.code == 125 && refused.errors.contains("node==nowhere"), "\(refused)")
                let info = try docker("docker info 2>/dev/null")
                for node in fabric.nodes { #expect(info.contains(node.name), "\(info)") }
                try docker("docker rm -f c1 c2 c3 c4 c5 c6 near")
                #expect(try docker("docker ps -aq").isEmpty)
            }
        }

        @Test(
            """
            a node is lost: what has a restart policy or asks for it is back elsewhere under the same id and name, \
            the rest waits
            """)
        func loss() throws {
            let client = try #require(DockerClient.all.last)
            try withFabric { fabric in
                let docker = Docker(fabric, client)
                let there = try #require(fabric.nodes.first)
                // Soft, so that they may go elsewhere.
                let place = "-e 'constraint:node==~\(there.name)' busybox sleep 1000"
                try docker("docker run -d --name always --restart always \(place)")
                try docker("docker run -d --name labelled -e reschedule:on-node-failure \(place)")
                try docker("docker run -d --name plain \(place)")
                let names = "always labelled plain"
                func seen(_ format: String, _ names: String) throws -> [Substring] {
                    try docker("docker inspect -f '\(format)' \(names)").split(separator: "\n")
                }
                #expect(try seen("{{.Node.Name}}", names) == ["n1", "n1", "n1"])
                let identifiers = try seen("{{.Id}}", names)
                try eventually("two nodes have the image") {
                    try fabric.decoded([ImageView].self, ["image", "ls", "--format", "json"])
                        .contains { $0.nodes.count >= 2 }
                }
                try there.powerOff()
                // A container that is to be replaced is so after a minute.
                try eventually("they run elsewhere", within: 150) {
                    try seen("{{.Node.Name}} {{.State.Running}}", "always labelled").allSatisfy {
                        $0 != "n1 true" && $0.hasSuffix(" true")
                    }
                }
                #expect(try seen("{{.Id}}", names) == identifiers)
                #expect(try docker("docker exec always echo here") == "here")
                #expect(try seen("{{.Node.Name}}", "plain") == ["n1"])
                #expect(
                    try docker("docker ps --format '{{.Names}}' --filter name=always").split(separator: "\n").count == 1
                )
                #expect(
                    try docker("docker ps --filter id=\(identifiers[0]) --format '{{.Names}}'").hasSuffix("always"))
            }
        }

        @Test("over TLS with a token in config.json")
        func network() throws {
            let client = try #require(DockerClient.all.last)
            try withFabric(nodes: 1) { fabric in
                let home = fabric.folder + "/user"
                try File.makeDirectories(home)
                let authority = try File.read(fabric.master.dataDirectory + "/authority/ca.crt")
                try File.replace(home + "/ca.pem", with: authority)
                let token = try fabric.token("--role", "operator")
                let text = #"{"HttpHeaders": {"Authorization": "Bearer \#(token)"}}"#
                try File.replace(home + "/config.json", with: Array(text.utf8))
                func docker(_ arguments: String...) throws -> Outcome {
                    try fabric.nodes[0].run(
                        [client.path, "--config", home] + arguments,
                        environment: [
                            "DOCKER_HOST=tcp://\(fabric.master.address):7070", "DOCKER_TLS_VERIFY=1",
                            "DOCKER_CERT_PATH=\(home)",
                        ])
                }
                let outcome = try docker("run", "--rm", "busybox", "echo", "over the network")
                #expect(outcome.output == "over the network\n", "\(outcome)")
                try File.replace(home + "/config.json", with: Array("{}".utf8))
                let refused = try docker("ps")
                #expect(refused.code == 1 && !refused.errors.isEmpty, "\(refused)")
            }
        }
    }
}
