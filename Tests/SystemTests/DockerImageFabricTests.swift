import Glibc
import JSON
import Kernel
import Model
import Testing
import Wire

extension SystemSuite {
    @Suite(
        "Docker's images and volumes on several nodes, and who may do what with them", .serialized,
        .disabled(if: DockerClient.isMissing, "needs docker and dockerd: scripts/setup.sh test installs docker.io"))
    struct DockerImageFabric {
        @Test(
            "push and pull with a login, run and commit on any node, volumes of one name on two",
            .enabled(if: FabricImages.hasRegistry, "needs docker-registry and skopeo"), arguments: DockerClient.all)
        func anyNode(_ client: DockerClient) throws {
            try withFabric(nodes: 2) { fabric in
                let machine = try fabric.addMachine("registry", number: 100)
                let registry = try fabric.startRegistry(on: machine)
                let (host, app) = ("\(machine.address):5000", "\(machine.address):5000/team/app")
                let side = DockerSide(
                    host: "unix://\(fabric.master.runDirectory)/martlet.sock", folder: fabric.folder + "/session",
                    machine: nil)
                func docker(_ line: String, sourceLocation: SourceLocation = #_sourceLocation) throws -> String {
                    let outcome = try side.run(line, client: client)
                    try #require(
                        outcome.code == 0, "`\(line)` ends with \(outcome.code): \(outcome.errors)\(outcome.output)",
                        sourceLocation: sourceLocation)
                    return outcome.output.hasSuffix("\n") ? String(outcome.output.dropLast()) : outcome.output
                }
                func expectRefusal(
                    _ line: String, _ words: String, sourceLocation: SourceLocation = #_sourceLocation
                ) throws {
                    let outcome = try side.run(line, client: client)
                    #expect(
                        outcome.code == 1 && outcome.errors.contains(words), "`\(line)`: \(outcome)",
                        sourceLocation: sourceLocation)
                }
                _ = try docker("docker tag busybox \(app):1")
                try expectRefusal("docker push \(app):1", "no basic auth credentials")
                try expectRefusal("docker pull \(app):1", "pull access denied for \(app)")
                try expectRefusal("docker pull -a \(app)", "pull access denied for \(app)")
                try expectRefusal("docker login -u tester -p wrong \(host)", "401")
                _ = try docker("echo secret | docker login -u tester --password-stdin \(host)")
                let pushed = try docker("docker push \(app):1")
                #expect(pushed.contains("1: digest: sha256:"), "\(pushed)")
                _ = try docker("docker rmi \(app):1")
                try expectRefusal("docker pull \(app):9", "manifest for \(app):9 not found: manifest unknown")
                try expectRefusal("docker pull -a \(host)/team/none", "repository \(host)/team/none not found")
                let pulled = try docker("docker pull \(app):1")
                #expect(
                    pulled.contains("1: Pulling from team/app")
                        && pulled.contains("Status: Downloaded newer image for \(app):1"))
                let all = try docker("docker pull -a \(app)")
                #expect(all.contains("Status: Image is up to date for \(app)"), "\(all)")
                try registry.signal(SIGKILL)
                try expectRefusal("docker pull \(app):1", "\(host) cannot be reached")
                try expectRefusal("docker push \(app):1", "\(host) cannot be reached")
                for node in fabric.nodes {
                    #expect(
                        try docker("docker run --rm -e constraint:node==\(node.name) \(app):1 echo here") == "here")
                }
                #expect(try docker("docker image ls -q \(app)").split(separator: "\n").count == 1)

                _ = try docker("docker run --name made -e constraint:node==n2 busybox sh -c 'echo n2 >/where'")
                _ = try docker("docker commit made kept:1")
                #expect(try docker("docker run --rm -e constraint:node==n1 kept:1 cat /where") == "n2")

                _ = try docker("docker volume create n1/both && docker volume create n2/both")
                #expect(try docker("docker volume ls -q") == "n1/both\nn2/both")
                #expect(try docker("docker volume inspect -f '{{.Status.Node}}' n2/both") == "n2")
                try expectRefusal("docker volume inspect both", "is on 2 nodes")
                _ = try docker("docker volume rm n1/both")
                #expect(try docker("docker volume ls -q") == "both")
            }
        }

        @Test("a developer makes images of new names only, removes none, and mounts no volume of the node's")
        func rights() throws {
            let client = try #require(DockerClient.all.last)
            try withFabric(nodes: 1) { fabric in
                let home = fabric.folder + "/user"
                try File.makeDirectories(home)
                try File.replace(
                    home + "/ca.pem", with: File.read(fabric.master.dataDirectory + "/authority/ca.crt"))
                func login(_ flags: String...) throws {
                    let token = try fabric.run(["token", "create", "-q"] + flags)
                    try expectSuccess(token)
                    let text = #"{"HttpHeaders": {"Authorization": "Bearer \#(token.text)"}}"#
                    try File.replace(home + "/config.json", with: Array(text.utf8))
                }
                func docker(_ arguments: String...) throws -> Outcome { try docker(arguments) }
                func docker(_ arguments: [String]) throws -> Outcome {
                    try fabric.nodes[0].run(
                        [client.path, "--config", home] + arguments,
                        environment: [
                            "DOCKER_HOST=tcp://\(fabric.master.address):7070", "DOCKER_TLS_VERIFY=1",
                            "DOCKER_CERT_PATH=\(home)",
                        ])
                }
                try login("--role", "operator")
                try expectSuccess(docker("tag", "busybox", "theirs:1"))
                let options = ["--opt", "type=none", "--opt", "o=bind", "--opt", "device=/etc"]
                try expectSuccess(docker(["volume", "create"] + options + ["hosts"]))

                try login("--role", "developer", "--group", "/a")
                let archive = fabric.folder + "/busybox.tar"
                try expectSuccess(docker("save", "-o", archive, "busybox"))
                for refused in [["rmi", "theirs:1"], ["image", "prune", "-f"], ["load", "-i", archive]] {
                    let outcome = try docker(refused)
                    #expect(outcome.code == 1 && outcome.errors.contains("may not do this"), "\(outcome)")
                }
                try expectSuccess(docker("run", "--name", "own", "busybox", "true"))
                for (command, target) in [("tag", "busybox"), ("commit", "own"), ("import", TestCluster.rootfs)] {
                    try expectSuccess(docker(command, target, "mine-\(command):1"))
                    let outcome = try docker(command, target, "theirs:1")
                    #expect(
                        outcome.code == 1 && outcome.errors.contains("may not give its name to another"), "\(outcome)")
                }
                let made = try docker(["volume", "create"] + options + ["more"])
                #expect(made.code == 1 && made.errors.contains("only type=tmpfs"), "\(made)")
                try expectSuccess(docker("volume", "create", "--opt", "type=tmpfs", "--opt", "device=tmpfs", "fast"))
                let mounted = try docker("run", "--rm", "-v", "hosts:/h", "busybox", "ls", "/h")
                #expect(mounted.code == 125 && mounted.errors.contains("is another group's"), "\(mounted)")
                #expect(try docker("volume", "ls", "-q").text == "fast")
            }
        }
    }
}
