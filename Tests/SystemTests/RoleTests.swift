import Glibc
import JSON
import Kernel
import Model
import Testing
import Wire

extension SystemSuite {
    @Suite("Who may do what, route by route", .serialized)
    struct Roles {
        /// Every kind of caller there is, and whether it is one that counts.
        struct Callers {
            /// By the name in `RouteTable.holders`.
            var known: [String: Caller.Credential] = [:]
            var strangers: [String: Caller.Credential] = [:]
        }

        /// - Parameter foreign: a node of another cluster.
        private func callers(_ fabric: ClusterFabric, foreign: Machine) throws -> Callers {
            var callers = Callers()
            for role in ["admin", "operator", "viewer"] {
                callers.known[role] = .token(try fabric.token("--role", role))
            }
            callers.known["developer"] = .token(try fabric.token("--role", "developer", "--group", "/a"))
            callers.known["joining"] = .token(try fabric.token())
            callers.known["node"] = .node(fabric.nodes[0])

            let good = try fabric.token("--role", "admin")
            var parts = good.split(separator: ".").map(String.init)
            parts[2] = String(parts[2].reversed())
            let revoked = try fabric.token("--role", "admin")
            try expectSuccess(fabric.martlet("token", "revoke", String(revoked.split(separator: ".")[1])))
            let expired = try fabric.token("--role", "admin", "--expires", "1s")
            try eventually("a token runs out") { try fabric.martlet("token", "ls").output.contains("expired") }
            callers.strangers = [
                "nothing": .none, "garbage": .token("garbage"), "no token": .token(""),
                "another's secret": .token(parts.joined(separator: ".")), "revoked": .token(revoked),
                "expired": .token(expired), "basic": .header("Basic YWRtaW46YWRtaW4="),
                "no scheme": .header(good), "another cluster's node": .node(foreign),
            ]
            return callers
        }

        /// A cluster of two nodes, and beside it another of one.
        private func withTwoClusters(_ body: (ClusterFabric, Machine) throws -> Void) throws {
            try withFabric(nodes: 2) { fabric in
                let other = try fabric.addMachine("other", number: 30)
                let foreign = try fabric.addMachine("foreign", number: 31)
                try expectSuccess(
                    other.martlet(["master", "--detach", "--advertise", other.address] + other.placeFlags))
                let token = try other.martlet(
                    ["token", "create", "-q"], environment: ["MARTLET_HOST=\(other.socket)"]
                ).text
                try expectSuccess(
                    foreign.martlet(
                        ["agent", "--detach", "--master", "https://\(other.address):7070", "--join", token]
                            + foreign.placeFlags + foreign.nodeFlags))
                try body(fabric, foreign)
            }
        }

        private static func request(_ route: String, node: String) -> Caller.Request {
            let words = route.split(separator: " ").map(String.init)
            let path = words[1].replacing("{node}", with: node).split(separator: "/", omittingEmptySubsequences: false)
                .map { $0.hasPrefix("{") ? "nothing-there" : String($0) }.joined(separator: "/")
            return Caller.Request(words[0], path)
        }

        @Test(
            "routes × roles: nothing but health without a credential, 403 and why without the right, no route unnamed")
        func master() throws {
            try withTwoClusters { fabric, foreign in
                let callers = try callers(fabric, foreign: foreign)
                let views = try fabric.nodeViews()
                let (own, other) = (try id(of: "n1", views), try id(of: "n2", views))

                let described = try documented(fabric, try #require(callers.known["viewer"]))
                let added = described.keys.filter { RouteTable.master[$0] == nil }.sorted()
                #expect(added == [], "these routes are new: name them in RouteTable")
                #expect(described == RouteTable.master)
                let table = RouteTable.master.merging(RouteTable.undescribed) { $1 }
                let routes = table.keys.sorted()

                for (name, credential) in callers.known {
                    let caller = try Caller(credential, at: fabric.url, from: fabric.nodes[1])
                    let answers = try caller.ask(routes.map { Self.request($0, node: own) })
                    for (route, answer) in zip(routes, answers) {
                        let right = try #require(table[route])
                        // Its own task would be given its secrets; there is none of this name.
                        if right == "node", name == "node", route.hasSuffix("/secrets") {
                            #expect(answer.message.contains("is not assigned to it"), "\(answer.text)")
                        } else if RouteTable.holders[right]?.contains(name) == true {
                            #expect(![0, 401, 403].contains(answer.status), "\(name): \(route): \(answer.text)")
                        } else {
                            #expect(answer.status == 403, "\(name): \(route)")
                            let says =
                                answer.message.contains("may not do this") && answer.message.contains("'\(right)'")
                            #expect(says || route.hasPrefix("HEAD "), "\(name): \(route): \(answer.text)")
                        }
                    }
                }
                for (name, credential) in callers.strangers {
                    let caller = try Caller(credential, at: fabric.url, from: fabric.nodes[1])
                    let answers = try caller.ask(routes.map { Self.request($0, node: own) })
                    for (route, answer) in zip(routes, answers) where route != "GET /healthz" {
                        // A certificate of another authority ends in the handshake.
                        let isRefused = name == "another cluster's node" ? [0, 401] : [401]
                        #expect(isRefused.contains(answer.status), "\(name): \(route)")
                    }
                }
                // Nor does it say what there is.
                let nobody = try Caller(.none, at: fabric.url, from: fabric.nodes[1])
                for path in [
                    "/", "/api/v1/nothing", "/healthz/", "//healthz", "/api/v1/../../healthz", "/healthz%2f",
                    "/node/v1/ping",
                ] {
                    #expect(try nobody.ask("GET", path).status == 401, "\(path)")
                }
                let health = try nobody.ask([
                    .init("GET", "/healthz"), .init("HEAD", "/healthz"), .init("PUT", "/healthz"),
                ])
                #expect(health.map(\.status) == [200, 200, 405])
                // A node is itself, and no other.
                let node = try Caller(.node(fabric.nodes[0]), at: fabric.url, from: fabric.nodes[1])
                for route in routes where table[route] == "node" && route.contains("{node}") {
                    #expect(try node.ask([Self.request(route, node: other)]).map(\.status) == [403], "\(route)")
                }
            }
        }

        private func id(of name: String, _ views: [NodeView]) throws -> String {
            try #require(views.first { $0.node.name == name }).node.id.text
        }

        /// The routes as the master describes them, with the right that each asks for.
        private func documented(
            _ fabric: ClusterFabric, _ credential: Caller.Credential
        ) throws -> [String: String] {
            let caller = try Caller(credential, at: fabric.url, from: fabric.nodes[1])
            let document = try JSONValue.parse(try caller.ask("GET", "/api/v1/openapi.json").body)
            var found: [String: String] = [:]
            for path in try #require(document["paths"]?.objectValue).members {
                for operation in path.value.objectValue?.members ?? [] {
                    found["\(operation.key.uppercased()) \(path.key)"] =
                        operation.value["x-martlet-access"]?.stringValue
                }
            }
            return found
        }

        @Test(
            "a node's stream port: the master may do everything, another node reads content, and nobody else anything")
        func agent() throws {
            try withTwoClusters { fabric, foreign in
                let callers = try callers(fabric, foreign: foreign)
                try expectSuccess(
                    fabric.martlet(
                        "run", "-d", "--name", "c", "--constraint", "node.name==n1", "busybox", "sleep", "1000"))
                let task = try #require(try fabric.inspect("c").task).text
                let port = "https://\(fabric.nodes[0].address):7071"
                let digest = try #require(
                    try fabric.decoded([ImageView].self, ["image", "ls", "--format", "json"]).first
                ).digest
                let content = "/node/v1/content/blobs/\(digest)"
                let requests = (RouteTable.agent + ["GET \(content)"]).map { route in
                    let words = route.replacing("{task}", with: task).split(separator: " ").map(String.init)
                    return Caller.Request(words[0], words[1])
                }
                // Users go through the master, whatever they may do there.
                var strangers = callers.strangers.merging(callers.known) { $1 }
                strangers["node"] = nil
                for (name, credential) in strangers {
                    let caller = try Caller(credential, at: port, from: fabric.nodes[1])
                    for (request, answer) in zip(requests, try caller.ask(requests)) {
                        let isRefused = name == "another cluster's node" ? [0, 401] : [401]
                        #expect(isRefused.contains(answer.status), "\(name): \(request)")
                    }
                }
                // The image may be on n1 only after the cluster has made its copies.
                let peer = try Caller(.node(fabric.nodes[1]), at: port, from: fabric.nodes[1])
                try eventually("content is given to a node") { try peer.ask("GET", content).status == 200 }
                for (request, answer) in zip(requests, try peer.ask(requests)) {
                    // What looks like content and is not, does not exist.
                    let right: Set =
                        request.path == content ? [200] : request.path.contains("/content/..") ? [404] : [403]
                    #expect(right.contains(answer.status), "\(request): \(answer.text)")
                }
                #expect(try peer.ask("GET", "/node/v1/content/blobs/sha256:../../x").status == 404)
                for name in ["..%2f..%2fx", "sha256:..%2f..%2f..%2fcredentials.json", "sha256%3A%00"] {
                    #expect(try peer.ask("GET", "/node/v1/content/blobs/\(name)").status == 400, "\(name)")
                }
                #expect(try fabric.inspect("c").status.phase == .running)

                // Neither port speaks without TLS, nor an old version of it.
                for port in ["\(fabric.master.address):7070", "\(fabric.nodes[0].address):7071"] {
                    let plain = try fabric.nodes[1].run(["curl", "-s", "--max-time", "5", "http://\(port)/healthz"])
                    #expect(plain.code != 0 && plain.output.isEmpty, "\(port)")
                    let old = try fabric.nodes[1].run([
                        "curl", "-sk", "--max-time", "5", "--tls-max", "1.1", "--ciphers", "DEFAULT@SECLEVEL=0",
                        "https://\(port)/healthz",
                    ])
                    #expect(old.code != 0 && old.output.isEmpty, "\(port)")
                }
            }
        }
    }
}
