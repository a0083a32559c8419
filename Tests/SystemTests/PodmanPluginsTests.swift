import Testing

extension SystemSuite {
    @Suite("Our CNI plugins under podman", .serialized) struct PodmanPlugins {
        @Test(
            "containers reach each other and a published port, and leave nothing behind",
            .disabled(if: RuntimeEngine.podman.isMissing, "needs podman: scripts/setup.sh test installs it"),
            arguments: [
                ("shared", "inet 10.98.0.3/24", "mtu 1500"), ("routed", "inet 10.98.0.3/32", "mtu 1400"),
            ])
        func chain(mode: String, address: String, mtu: String) throws {
            let room = try RuntimeEngineRoom(.podman, "plugins-\(mode)", runtime: "/usr/sbin/runc")
            defer { room.tearDown() }
            try room.waitUntilOpen()
            try room.begin("bash \(RuntimeEngineRoom.files)/plugins.sh \(TestCluster.programs) \(mode)")
            let outcome = try room.outcome()
            #expect(outcome.code == 0, "\(outcome.errors)\(room.log)")
            // By the host, by the neighbour, by the published port from both and from the host; two devices of bandwidth's.
            #expect(
                outcome.output.split(separator: "\n").map { String($0) } == [
                    "page", "page", "page", "page", "page", "2", address, mtu,
                    "left: 0 devices, 0 rules, 0 leases, 0 routes",
                ], "\(outcome.output)")
        }
    }
}
