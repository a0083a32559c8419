import Testing

extension SystemSuite {
    @Suite("Engines run containers through martlet-runtime as they do through runc", .serialized)
    struct RuntimeEngines {
        @Test(
            "podman --runtime: containers, pods, networks",
            .disabled(if: RuntimeEngine.podman.isMissing, "needs podman: scripts/setup.sh test installs it"))
        func podman() throws { try RuntimeEngine.podman.compare() }

        @Test(
            "containerd: ctr run --runc-binary",
            .disabled(if: RuntimeEngine.ctr.isMissing, "needs containerd, podman: scripts/setup.sh test installs them"))
        func containerd() throws { try RuntimeEngine.ctr.compare() }

        @Test(
            "dockerd --add-runtime",
            .disabled(if: RuntimeEngine.dockerd.isMissing, "needs docker.io: scripts/setup.sh test installs it"))
        func dockerd() throws { try RuntimeEngine.dockerd.compare() }
    }
}
