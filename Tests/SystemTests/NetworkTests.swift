import JSON
import Kernel
import Model
import Testing
import Wire

extension SystemSuite {
    /// Networks that users made, through the command line and the whole node.
    @Suite("networks", .serialized)
    struct UserNetworks {
        private func start(_ cluster: TestCluster, _ name: String, _ options: [String] = []) throws {
            let serve = "echo \(name) >/www/index.html; exec httpd -f -p 80 -h /www"
            try expectSuccess(
                cluster.run(["run", "-d", "--name", name] + options + ["busybox", "sh", "-c", serve]))
            try eventually("\(name) serves") {
                try cluster.martlet("exec", name, "wget", "-q", "-O", "-", "http://127.0.0.1/").code == 0
            }
        }

        /// What the container gets from a host; nil: nothing.
        private func get(_ cluster: TestCluster, _ from: String, _ host: String) throws -> String? {
            let outcome = try cluster.martlet("exec", from, "timeout", "3", "wget", "-q", "-O", "-", "http://\(host)/")
            return outcome.code == 0 ? outcome.text : nil
        }

        private func address(_ cluster: TestCluster, _ name: String, on network: String? = nil) throws -> String {
            let view = try cluster.inspect(name)
            let endpoint = view.status.endpoints.first { network == nil || $0.network == network }
            return String(try #require(endpoint).address.prefix { $0 != "/" })
        }

        private func network(_ cluster: TestCluster, _ name: String) throws -> NetworkView {
            let outcome = try cluster.martlet("network", "inspect", name)
            try expectSuccess(outcome)
            return try #require(
                try JSONCoding.decode([NetworkView].self, from: Array(outcome.output.utf8)).first)
        }

        private func devices() throws -> [String] {
            try File.list("/sys/class/net").filter { $0.hasPrefix(Network.devicePrefix) }
        }

        @Test("members find each other by name, others do not, also after the agent was killed")
        func names() throws {
            try withCluster { cluster in
                try expectSuccess(cluster.martlet("network", "create", "shop"))
                let mtu = "com.docker.network.driver.mtu"
                let both = try cluster.martlet("network", "create", "--mtu", "1400", "--opt", "\(mtu)=1500", "other")
                #expect(both.code == 64 && both.errors.contains("--mtu 1400 is not the 1500"), "\(both)")
                try expectSuccess(
                    cluster.martlet("network", "create", "--internal", "--subnet", "10.44.0.0/24", "inner"))
                try start(cluster, "db", ["--network", "shop", "--network-alias", "data"])
                try start(cluster, "web", ["--network", "shop"])
                try start(cluster, "plain")
                try start(cluster, "closed", ["--network", "inner", "--ip", "10.44.0.9"])
                let id = try cluster.inspect("db").id.text
                for name in ["db", "data", String(id.prefix(12)), try address(cluster, "db")] {
                    try eventually("web reaches db as \(name)") { try get(cluster, "web", name) == "db" }
                }
                try eventually("db reaches web") { try get(cluster, "db", "web") == "web" }
                #expect(try get(cluster, "plain", "db") == nil)
                #expect(try get(cluster, "plain", address(cluster, "db")) == nil)
                #expect(try get(cluster, "web", address(cluster, "plain")) == nil)
                #expect(try address(cluster, "closed") == "10.44.0.9")
                #expect(try !cluster.martlet("exec", "closed", "ip", "route").output.contains("default"))
                #expect(try network(cluster, "shop").members.map(\.name) == ["db", "web"])

                // A container that has gone is not found any more; one that comes is, by those who run.
                try expectSuccess(cluster.martlet("rm", "-f", "web"))
                try eventually("web is forgotten") {
                    try !cluster.martlet("exec", "db", "cat", "/etc/hosts").output.contains("web")
                }
                try cluster.kill("up")
                try expectSuccess(cluster.run(["up", "--detach"] + cluster.placeFlags + cluster.nodeFlags))
                try start(cluster, "next", ["--network", "shop"])
                try eventually("db reaches next") { try get(cluster, "db", "next") == "next" }
                try eventually("next reaches db") { try get(cluster, "next", "data") == "db" }
                #expect(try cluster.martlet("network", "rm", "shop").errors.contains("has active endpoints: db, next"))
                try expectSuccess(cluster.martlet("rm", "-f", "db", "next", "closed"))
                try expectSuccess(cluster.martlet("network", "rm", "shop", "inner"))
                #expect(try devices() == [])
            }
        }

        private static let hasReferencePlugins = ["bridge", "host-local", "bandwidth"].allSatisfy {
            File.exists("/usr/lib/cni/\($0)")
        }

        @Test(
            "a network is what a CNI configuration list says, and its plugins get what was asked for",
            .enabled(if: hasReferencePlugins, "needs the reference plugins (containernetworking-plugins)"))
        func configured() throws {
            try withCluster { cluster in
                let list = "\(cluster.folder)/list.json"
                let bridge =
                    #"{"type": "bridge", "bridge": "cni-list0", "isGateway": true, "capabilities": {"ips": true}, "#
                    + #""ipam": {"type": "host-local", "dataDir": "\#(cluster.folder)/leases", "#
                    + #""ranges": [[{"subnet": "10.77.0.0/24"}]]}}"#
                let limits = #"{"type": "bandwidth", "capabilities": {"bandwidth": true}}"#
                try File.replace(
                    list,
                    with: Array(#"{"cniVersion": "1.0.0", "name": "lan", "plugins": [\#(bridge), \#(limits)]}"#.utf8))
                try expectSuccess(cluster.martlet("network", "create", "-d", "cni", "--config", list, "lan"))
                try start(cluster, "slow", ["--network", "lan", "--bandwidth", "in=8m,out=4m"])
                try start(cluster, "plain", ["--network", "lan"])
                #expect(try address(cluster, "slow").hasPrefix("10.77.0."))
                #expect(try get(cluster, "plain", address(cluster, "slow")) == "slow")
                // To it by its own device, from it by a device that the plugin makes.
                let rates = try (Program("/sbin/tc", ["qdisc", "show"]).run() as ProgramResult).output
                let shaped = String(decoding: rates, as: UTF8.self).split(separator: "\n").filter { $0.contains("tbf") }
                #expect(shaped.count == 2 && shaped.contains { $0.contains("rate 8Mbit") }, "\(shaped)")
                #expect(shaped.contains { $0.contains("rate 4Mbit") }, "\(shaped)")
                // Nobody in the list can publish ports, and a bridge of ours has no plugin for limits.
                let port = try cluster.run(["run", "--rm", "--network", "lan", "-p", "18080:80", "busybox", "true"])
                #expect(port.code == 125 && port.errors.contains("portMappings"), "\(port)")
                try expectSuccess(cluster.martlet("network", "create", "own"))
                let own = try cluster.run(
                    ["run", "--rm", "--network", "own", "--bandwidth", "in=8m", "busybox", "true"])
                #expect(own.code == 125 && own.errors.contains("own has the driver bridge"), "\(own)")
                try expectSuccess(cluster.martlet("rm", "-f", "slow", "plain"))
                try expectSuccess(cluster.martlet("network", "rm", "lan", "own"))
                let left = try (Program("/sbin/ip", ["-o", "link"]).run() as ProgramResult).output
                #expect(!String(decoding: left, as: UTF8.self).contains("master cni-list0"))
                // The reference plugin leaves its bridge.
                _ = try Program("/sbin/ip", ["link", "del", "cni-list0"]).run() as ProgramResult
                try expectSuccess(cluster.run(["down", "--all"] + cluster.placeFlags))
                #expect(!File.exists(cluster.dataDirectory))
            }
        }

        @Test("a running container comes to overlays and leaves them, each with the MTU that it was made with")
        func overlays() throws {
            try withCluster { cluster in
                try expectSuccess(
                    cluster.martlet("network", "create", "-d", "overlay", "--mtu", "1300", "--ipv6", "red"))
                try expectSuccess(cluster.martlet("network", "create", "-d", "overlay", "--label", "a=b", "blue"))
                #expect(try network(cluster, "blue").network.labels == ["a": "b"])
                try start(cluster, "a", ["--network", "red"])
                try start(cluster, "b", ["--network", "blue"])
                let pid = try cluster.inspect("a").container.pid
                func mtu(_ device: String) throws -> String {
                    try cluster.martlet("exec", "a", "cat", "/sys/class/net/\(device)/mtu").text
                }
                #expect(try mtu("eth0") == "1300")
                let other = try address(cluster, "b")
                #expect(try get(cluster, "a", other) == nil)
                try expectSuccess(cluster.martlet("network", "connect", "--alias", "friend", "blue", "a"))
                try eventually("b reaches a") { try get(cluster, "b", "friend") == "a" }
                #expect(try get(cluster, "a", other) == "b")
                #expect(try mtu("eth0") == "1300")
                #expect(try mtu("eth1") != "1300")
                try expectSuccess(cluster.martlet("network", "disconnect", "red", "a"))
                try eventually("it is told") { try cluster.inspect("a").status.endpoints.count == 1 }
                #expect(try get(cluster, "b", "friend") == "a")
                try expectSuccess(cluster.martlet("network", "disconnect", "blue", "a"))
                try eventually("b does not reach a") { try get(cluster, "b", "friend") == nil }
                #expect(try cluster.inspect("a").container.pid == pid)
                try expectSuccess(cluster.martlet("rm", "-f", "a", "b"))
                try expectSuccess(cluster.martlet("network", "rm", "red", "blue"))
                #expect(try devices() == [])
            }
        }

        @Test("a running container comes and goes, and keeps its process")
        func connecting() throws {
            try withCluster { cluster in
                for name in ["one", "two"] { try expectSuccess(cluster.martlet("network", "create", name)) }
                try start(cluster, "a", ["--network", "one", "--publish", "18080:80"])
                try start(cluster, "b", ["--network", "two"])
                let pid = try cluster.inspect("a").container.pid
                try expectSuccess(cluster.martlet("network", "connect", "--alias", "friend", "two", "a"))
                try eventually("b reaches a") { try get(cluster, "b", "friend") == "a" }
                try eventually("a reaches b") { try get(cluster, "a", "b") == "b" }
                try eventually("it is told") { try cluster.inspect("a").status.endpoints.count == 2 }
                try expectSuccess(cluster.martlet("network", "disconnect", "one", "a"))
                try eventually("it is told") { try cluster.inspect("a").status.endpoints.count == 1 }
                // What it published goes on through the network that is left, and so does its way out.
                let gateway = try #require(try cluster.inspect("a").status.endpoints.first).gateway
                let routes = try cluster.martlet("exec", "a", "ip", "route").output
                #expect(routes.contains("default via \(gateway)"))
                #expect(try get(cluster, "b", "\(gateway):18080") == "a")
                #expect(try get(cluster, "b", "friend") == "a")
                try expectSuccess(cluster.martlet("network", "disconnect", "two", "a"))
                try eventually("b does not know a") { try get(cluster, "b", "friend") == nil }
                try expectSuccess(cluster.martlet("network", "connect", "bridge", "a"))
                try eventually("it is on the node's own") {
                    try cluster.inspect("a").status.endpoints.map(\.network) == ["bridge"]
                }
                #expect(try cluster.inspect("a").container.pid == pid)
                try expectSuccess(cluster.martlet("network", "rm", "one"))
                try expectSuccess(cluster.martlet("rm", "-f", "a", "b"))
                #expect(try cluster.martlet("network", "prune").text == "two")
                #expect(try devices() == [])
            }
        }

        @Test(
            "SIGKILL while a network is made, joined and left", .serialized,
            arguments: [
                "network.before_device", "network.after_bridge", "network.after_rules", "agent.after_attachment",
                "cni.after_plugin", "agent.after_disconnect", "network.after_detach",
            ])
        func crashes(point: String) throws {
            let cluster = try TestCluster()
            defer { cluster.tearDown() }
            try cluster.upAsTwo()
            try cluster.importImage()
            for name in ["one", "two"] { try expectSuccess(cluster.martlet("network", "create", name)) }
            try start(cluster, "b", ["--network", "one"])
            let isLeaving = point.contains("disconnect") || point.contains("detach")
            if isLeaving { try start(cluster, "a", ["--network", "one"]) }
            try cluster.kill("agent")
            try cluster.startAgent(environment: ["MARTLET_FAILPOINT=\(point)"])
            try eventually("the agent is back") { try cluster.martlet("exec", "b", "true").code == 0 }
            if isLeaving {
                try expectSuccess(cluster.martlet("network", "disconnect", "one", "a"))
            } else {
                _ = try cluster.begin([
                    "run", "-d", "--name", "a", "--network", "two", "--restart", "always", "busybox", "sleep", "1000",
                ])
            }
            let pid = try cluster.pid(of: "agent")
            try eventually("the agent dies at \(point)") { try Proc.stat(pid)?.hasEnded ?? true }
            try cluster.startAgent()
            if isLeaving {
                try eventually("a is on no network") { try cluster.inspect("a").status.endpoints.isEmpty }
            } else {
                try eventually("a runs on two") {
                    let view = try cluster.inspect("a")
                    return view.status.phase == .running && view.status.endpoints.count == 1
                }
                #expect(try devices().count == 2)
            }
            try eventually("b goes on") { try get(cluster, "b", "127.0.0.1") == "b" }
            try expectSuccess(cluster.martlet("rm", "-f", "a", "b"))
            try expectSuccess(cluster.martlet("network", "rm", "one", "two"))
            #expect(try devices() == [])
            #expect(try File.list("\(cluster.runDirectory)/cni/ipam").filter { $0.hasPrefix("mt-") } == [])
        }
    }
}
