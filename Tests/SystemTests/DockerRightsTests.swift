import Glibc
import Kernel
import Model
import Testing
import Wire

extension SystemSuite {
    @Suite("Who may do what on the Docker API", .serialized)
    struct DockerRights {
        private static func request(_ route: String) -> Caller.Request {
            let words = route.split(separator: " ").map(String.init)
            let path = words[1].replacing("{id}", with: "nothing-there")
            return Caller.Request(words[0], "/v1.56" + path, body: words[0] == "POST" ? "{}" : nil)
        }

        @Test("routes × roles: nothing without a credential, 403 and why without the right")
        func routes() throws {
            try withFabric(nodes: 1) { fabric in
                var callers: [String: Caller.Credential] = [
                    "joining": .token(try fabric.token()), "node": .node(fabric.nodes[0]),
                    "developer": .token(try fabric.token("--role", "developer", "--group", "/a")),
                ]
                for role in ["admin", "operator", "viewer"] { callers[role] = .token(try fabric.token("--role", role)) }
                let table = RouteTable.docker
                let routes = table.keys.sorted()
                for (name, credential) in callers {
                    let caller = try Caller(credential, at: fabric.url, from: fabric.nodes[0])
                    for (route, answer) in zip(routes, try caller.ask(routes.map(Self.request))) {
                        let right = try #require(table[route])
                        if RouteTable.holders[right]?.contains(name) == true {
                            #expect(![0, 401, 403].contains(answer.status), "\(name): \(route): \(answer.text)")
                        } else {
                            #expect(answer.status == 403, "\(name): \(route): \(answer.text)")
                            #expect(answer.text.contains("'\(right)'") || route.hasPrefix("HEAD "), "\(answer.text)")
                        }
                    }
                }
                for (name, credential) in ["nothing": Caller.Credential.none, "garbage": .token("garbage")] {
                    let caller = try Caller(credential, at: fabric.url, from: fabric.nodes[0])
                    for (route, answer) in zip(routes, try caller.ask(routes.map(Self.request))) {
                        #expect(answer.status == 401, "\(name): \(route)")
                    }
                }
            }
        }

        @Test(
            "a developer of a group gets nothing of the node's and nothing of others', however the body is written",
            .disabled(if: access("/usr/bin/python3", X_OK) != 0, "needs python3: scripts/setup.sh test installs it"))
        func confinement() throws {
            try withFabric(nodes: 1) { fabric in
                try expectSuccess(fabric.martlet("run", "-d", "--name", "other", "busybox", "sleep", "10000"))
                let outcome = try fabric.nodes[0].run([
                    "/usr/bin/python3", "\(DockerSession.folder)/confined.py", "\(fabric.master.address):7070",
                    try fabric.token("--role", "admin"),
                    try fabric.token("--role", "developer", "--group", "/a"),
                ])
                #expect(outcome.output == "nothing was given\n", "\(outcome)")
            }
        }
    }
}
