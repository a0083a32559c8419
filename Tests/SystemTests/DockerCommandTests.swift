import Testing

extension SystemSuite {
    @Suite(
        "The docker command line says the same of Martlet and of dockerd", .serialized,
        .disabled(if: DockerClient.isMissing, "needs docker and dockerd: scripts/setup.sh test installs docker.io"))
    struct DockerCommands {
        @Test("containers: create, run, start, stop, ps, inspect, update, rename …", arguments: DockerClient.all)
        func containers(_ client: DockerClient) throws {
            try withDockerPair { try $0.compare("containers", client: client) }
        }

        @Test("flags of run and create", arguments: DockerClient.only(.oldest))
        func flags(_ client: DockerClient) throws {
            try withDockerPair { try $0.compare("flags", client: client) }
        }

        @Test("mounts and ports of run and create", arguments: DockerClient.only(.newest))
        func mounts(_ client: DockerClient) throws {
            try withDockerPair { try $0.compare("mounts", client: client) }
        }

        @Test("streams: attach, exec, logs, stats, cp, export, commit, diff …", arguments: DockerClient.all)
        func streams(_ client: DockerClient) throws {
            try withDockerPair { try $0.compare("streams", client: client) }
        }

        @Test("images, and a registry with a login", arguments: DockerClient.all)
        func images(_ client: DockerClient) throws {
            try withDockerPair { try $0.compare("images", client: client) }
        }

        @Test("networks", arguments: DockerClient.only(.newest))
        func networks(_ client: DockerClient) throws {
            try withDockerPair { try $0.compare("networks", client: client) }
        }

        @Test("volumes", arguments: DockerClient.only(.oldest))
        func volumes(_ client: DockerClient) throws {
            try withDockerPair { try $0.compare("volumes", client: client) }
        }

        @Test("info, version, df, events, prune; what is refused", arguments: DockerClient.all)
        func system(_ client: DockerClient) throws {
            try withDockerPair { try $0.compare("system", client: client) }
        }
    }
}
