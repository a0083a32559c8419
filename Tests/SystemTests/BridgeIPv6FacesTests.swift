import Glibc
import Kernel
import Model
import Testing
import Wire

extension SystemSuite {
    /// A bridge network with IPv6, as users of either command line see it.
    @Suite(
        "networks with IPv6", .serialized,
        .enabled(if: File.exists("/usr/bin/docker") || File.exists("/usr/local/bin/docker"), "needs the docker CLI"))
    struct BridgeIPv6Faces {
        private func docker(_ cluster: TestCluster, _ arguments: String...) throws -> Outcome {
            let result = try Program(
                "/bin/sh", ["-c", "exec docker \"$@\"", "sh"] + arguments,
                environment: [
                    "DOCKER_HOST=unix://\(cluster.runDirectory)/martlet.sock", "HOME=\(cluster.folder)",
                    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                ], timeoutMilliseconds: 60_000
            ).run()
            return Outcome(
                code: result.status.shellCode, output: String(decoding: result.output, as: UTF8.self),
                errors: String(decoding: result.errors, as: UTF8.self),
                what: "docker \(arguments.joined(separator: " "))")
        }

        @Test("both command lines make it, fix addresses on it, publish from it, and show what there is")
        func faces() throws {
            try withCluster { cluster in
                try expectSuccess(docker(cluster, "network", "create", "--ipv6", "--subnet", "fd00:77::/64", "six"))
                let serve = "echo a >/www/index.html; httpd -p '[::]:80' -h /www; exec sleep 1000"
                try expectSuccess(
                    docker(
                        cluster, "run", "-d", "--name", "one", "--network", "six", "--ip6", "fd00:77::9", "-p",
                        "18085:80", "-p", "[::]:18086:80", "busybox", "sh", "-c", serve))
                let place =
                    #"{{with index .NetworkSettings.Networks "six"}}{{.GlobalIPv6Address}}/{{.GlobalIPv6PrefixLen}} {{.IPv6Gateway}}{{end}}"#
                #expect(try docker(cluster, "inspect", "-f", place, "one").text == "fd00:77::9/64 fd00:77::1")
                let network = #"{{.EnableIPv6}}{{range .Containers}} {{.IPv6Address}}{{end}}"#
                #expect(
                    try docker(cluster, "network", "inspect", "-f", network, "six").text == "true fd00:77::9/64")
                let ports = try docker(cluster, "port", "one").output.split(separator: "\n").map(String.init).sorted()
                #expect(
                    ports == [
                        "80/tcp -> 0.0.0.0:18085", "80/tcp -> [::]:18085", "80/tcp -> [::]:18086",
                    ])
                #expect(
                    try docker(cluster, "ps", "--format", "{{.Ports}}").text
                        == "0.0.0.0:18085->80/tcp, :::18085->80/tcp, :::18086->80/tcp"
                        || docker(cluster, "ps", "--format", "{{.Ports}}").text
                            == "0.0.0.0:18085->80/tcp, [::]:18085->80/tcp, [::]:18086->80/tcp"
                )
                func get(_ host: String) throws -> String {
                    try docker(
                        cluster, "run", "--rm", "--network", "six", "busybox", "timeout", "3", "wget", "-q", "-O", "-",
                        "http://\(host)/"
                    ).text
                }
                #expect(try get("[fd00:77::9]") == "a" && get("[fd00:77::1]:18085") == "a")
                #expect(try fetch("http://[fd00:77::1]:18086/") == "a")
                // Whoever has no IPv6 is told what to do.
                let none = try docker(cluster, "run", "-d", "-p", "[2001:db8::5]:81:80", "busybox", "true")
                #expect(none.code != 0 && none.errors.contains("a node's own network, by which the ports"), "\(none)")
                let fixed = try docker(cluster, "network", "create", "--subnet", "fd00:78::/64", "plain")
                #expect(fixed.code != 0 && fixed.errors.contains("add --ipv6"), "\(fixed)")
                try expectSuccess(cluster.martlet("network", "create", "--ipv6", "chosen"))
                try expectSuccess(
                    cluster.run([
                        "run", "-d", "--name", "two", "--network", "chosen", "--publish", "[::]:18087:80", "busybox",
                        "sleep", "1000",
                    ]))
                let endpoint = try #require(try cluster.inspect("two").status.endpoints.first)
                #expect(endpoint.address6.hasPrefix("fd") && endpoint.address6.hasSuffix("::2/64"), "\(endpoint)")
                try expectSuccess(docker(cluster, "network", "connect", "--ip6", "fd00:77::b", "six", "two"))
                try eventually("it is told") { try cluster.inspect("two").status.endpoints.count == 2 }
                #expect(try cluster.inspect("two").status.endpoints.contains { $0.address6 == "fd00:77::b/64" })
                try expectSuccess(cluster.martlet("rm", "-f", "one", "two"))
                try expectSuccess(cluster.martlet("network", "rm", "six", "chosen"))
            }
        }
    }
}
