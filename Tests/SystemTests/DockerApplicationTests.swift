import Glibc
import JSON
import Kernel
import Testing

/// Docker's Python SDK and Compose, which `scripts/dockersdk.sh` puts there.
private let sdk = getenv("MARTLET_DOCKERSDK").map { String(cString: $0) }

/// How Compose is called.
struct ComposeCall: Sendable, CustomTestStringConvertible {
    let command: String
    let client: DockerClient

    var testDescription: String {
        command.hasPrefix("docker ") ? "plugin of docker \(client.version)" : "docker-compose"
    }

    /// As a program of its own, and as a plugin of each `docker`, or of the oldest one.
    static let all: [ComposeCall] = {
        guard let newest = DockerClient.all.last else { return [] }
        return [ComposeCall(command: "docker-compose", client: newest)]
            + DockerClient.only(.oldest).map { ComposeCall(command: "docker compose", client: $0) }
    }()
}

extension DockerSide {
    /// A cluster, through its socket.
    init(_ cluster: TestCluster) {
        self.init(
            host: "unix://\(cluster.runDirectory)/martlet.sock", folder: cluster.folder + "/session", machine: nil)
    }

    /// Runs a program of `docker/` to its end.
    ///
    /// - Parameter environment: words in front, as a shell takes them: `A=b`.
    func program(
        _ command: String, environment: String = "", client: DockerClient, seconds: Int = 300
    ) throws -> DockerOutcome {
        try run(
            """
            \(environment) PYTHONPATH='\(sdk ?? "")' PYTHONDONTWRITEBYTECODE=1 PATH="$PATH:\(sdk ?? "")" \
            exec \(command)
            """, client: client, seconds: seconds)
    }
}

extension SystemSuite {
    @Suite(
        "What is written for Docker runs on Martlet", .serialized,
        .disabled(if: DockerClient.isMissing, "needs docker and dockerd: scripts/setup.sh test installs docker.io"),
        .disabled(
            if: sdk == nil, "needs the Python SDK and Compose: scripts/dockersdk.sh fetches them, `make test` calls it")
    )
    struct DockerApplications {
        @Test("the Python SDK: one program runs on dockerd and on Martlet")
        func pythonSDK() throws {
            let client = try #require(DockerClient.all.last)
            try withDockerPair { pair in
                for side in [pair.reference, pair.ours] {
                    let outcome = try side.program(
                        "/usr/bin/python3 \(DockerSession.folder)/sdk.py", client: client, seconds: 120)
                    #expect(
                        outcome.code == 0,
                        "at \(side.host), after \(outcome.output.split(separator: "\n").joined(separator: " ")): \(outcome.errors.suffix(1500))"
                    )
                }
            }
        }

        @Test(
            "Compose: three services with networks, volumes, health checks and dependencies come up and go",
            arguments: ComposeCall.all)
        func compose(_ call: ComposeCall) throws {
            try withCluster { cluster in
                let side = DockerSide(cluster)
                let plugins = "\(side.folder)/home/.docker/cli-plugins"
                try File.makeDirectories(plugins)
                try systemCall("symlink") { symlink("\(sdk ?? "")/docker-compose", "\(plugins)/docker-compose") }
                let outcome = try side.program(
                    "/bin/sh \(DockerSession.folder)/application.sh '\(call.command)' \(DockerSession.folder)",
                    client: call.client)
                #expect(
                    outcome.code == 0 && outcome.output.hasSuffix("done\n"),
                    "\(outcome.output.suffix(1000))\n\(outcome.errors.suffix(2000))")
            }
        }
    }
}
