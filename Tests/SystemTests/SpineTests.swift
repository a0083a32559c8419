import Glibc
import JSON
import Kernel
import Model
import Testing
import Wire

extension SystemSuite {
    @Suite("From an image to a service, through the real programs", .serialized)
    struct Spine {
        @Test("run in the foreground: output, error and exit code are the program's own")
        func foreground() throws {
            try withCluster { cluster in
                let outcome = try cluster.martlet(
                    "run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2; exit 7")
                #expect(outcome.code == 7)
                #expect(outcome.output == "out\n")
                #expect(outcome.errors == "err\n")
                try eventually("--rm removed it") { try cluster.containers().isEmpty }
            }
        }

        @Test("run -i: standard input reaches the program, and its end too")
        func standardInput() throws {
            try withCluster { cluster in
                let text = String(repeating: "a line of text\n", count: 20_000)
                let outcome = try cluster.run(["run", "--rm", "-i", "busybox", "md5sum"], input: Array(text.utf8))
                let expected = try cluster.run([
                    "run", "--rm", "busybox", "sh", "-c", "yes 'a line of text' | head -n 20000 | md5sum",
                ])
                #expect(outcome.code == 0)
                #expect(outcome.output == expected.output)
            }
        }

        @Test("the life of a detached container: ps, logs, exec, cp, pause, stats, top, stop, start, rm")
        func life() throws {
            try withCluster { cluster in
                try expectSuccess(
                    cluster.martlet("run", "-d", "--name", "one", "busybox", "sh", "-c", "echo begun; exec sleep 1000"))
                try eventually("it runs") { try cluster.inspect("one").status.phase == .running }
                #expect(try cluster.martlet("ps", "--format", "{{.Name}}").text == "one")
                try eventually("its output is in the log") { try cluster.martlet("logs", "one").output == "begun\n" }

                let exec = try cluster.martlet("exec", "one", "sh", "-c", "echo $$ >/tmp/x; cat /tmp/x; exit 3")
                #expect(exec.code == 3)
                try cluster.martlet("exec", "-i", "one", "sh", "-c", "cat >/tmp/y", input: "from outside\n")
                try expectSuccess(cluster.martlet("cp", "one:/tmp/y", cluster.folder + "/y"))
                #expect(try File.text(cluster.folder + "/y") == "from outside")
                try expectSuccess(cluster.martlet("cp", cluster.folder + "/y", "one:/tmp/z"))
                #expect(try cluster.martlet("exec", "one", "cat", "/tmp/z").text == "from outside")

                try expectSuccess(cluster.martlet("pause", "one"))
                #expect(try cluster.inspect("one").status.phase == .paused)
                try expectSuccess(cluster.martlet("unpause", "one"))
                #expect(try cluster.martlet("stats", "--no-stream", "--format", "{{.Name}}").text == "one")
                #expect(try cluster.martlet("top", "one").output.contains("sleep 1000"))

                let before = try cluster.inspect("one").container.pid
                try expectSuccess(cluster.martlet("stop", "-t", "1", "one"))
                let stopped = try cluster.inspect("one")
                #expect(stopped.status.phase == .exited && stopped.container.exitCode == 137)
                try expectSuccess(cluster.martlet("start", "one"))
                try eventually("it runs again") { try cluster.inspect("one").status.phase == .running }
                let again = try cluster.inspect("one")
                #expect(again.container.pid != before && again.container.start == 2)
                #expect(
                    try cluster.martlet("exec", "one", "cat", "/tmp/z").text == "from outside",
                    "the writable layer is kept")

                #expect(try cluster.martlet("rm", "one").code == 1, "a running container is not removed by accident")
                try expectSuccess(cluster.martlet("rm", "-f", "one"))
                #expect(try cluster.containers().isEmpty)
            }
        }

        @Test("a service: two instances with ports of their own, scaled, updated one after another, removed")
        func service() throws {
            try withCluster { cluster in
                try expectSuccess(
                    cluster.martlet(
                        "service", "create", "--name", "web", "--replicas", "2", "-p", "18080-18082:80", "busybox",
                        "sh", "-c",
                        "hostname >/www/index.html; exec httpd -f -p 80 -h /www"))
                try expectSuccess(cluster.martlet("service", "wait", "web", "--timeout", "60"))
                let views = try cluster.containers(service: "web")
                #expect(Set(views.flatMap(\.ports).map(\.hostPort)) == [18080, 18081])
                #expect(Set(views.flatMap(\.status.addresses)).count == 2)
                for view in views {
                    let port = try #require(view.ports.first?.hostPort)
                    let page = try fetch("http://127.0.0.1:\(port)/")
                    let direct = try fetch("http://\(view.status.addresses[0])/")
                    #expect(page == direct)
                    #expect(view.id.text.hasPrefix(page), "the host name is the container's id")
                }
                try expectSuccess(cluster.martlet("service", "scale", "web=3"))
                try expectSuccess(cluster.martlet("service", "wait", "web"))
                #expect(try cluster.containers(service: "web").count == 3)

                let ids = Set(try cluster.containers(service: "web").map(\.id))
                try expectSuccess(cluster.martlet("service", "update", "--env", "COLOUR=blue", "web"))
                try expectSuccess(cluster.martlet("service", "wait", "web"))
                let updated = try cluster.containers(service: "web")
                #expect(updated.allSatisfy { $0.revision == 2 })
                #expect(Set(updated.map(\.id)) == ids, "instances keep their container ids")
                #expect(try cluster.martlet("exec", "web.1", "sh", "-c", "echo $COLOUR").text == "blue")

                try expectSuccess(cluster.martlet("network", "create", "shop"))
                try expectSuccess(
                    cluster.martlet(
                        "service", "create", "--name", "plain", "--stop-signal", "KILL", "busybox", "sleep", "1000"))
                try expectSuccess(cluster.martlet("service", "update", "--network", "shop", "plain"))
                try expectSuccess(cluster.martlet("service", "wait", "plain"))
                let moved = try #require(try cluster.containers(service: "plain").first)
                #expect(moved.pod.network == .attached && moved.pod.attachments.count == 1)

                try expectSuccess(cluster.martlet("service", "rm", "web", "plain"))
                try eventually("nothing of it is left") { try cluster.containers().isEmpty }
            }
        }

        @Test("what cannot be placed says why, and is placed once it can be")
        func explanation() throws {
            try withCluster { cluster in
                let name = try #require(
                    try JSONCoding.decode(
                        [NodeView].self, from: Array(cluster.martlet("node", "ls", "--format", "json").output.utf8)
                    ).first
                ).node.name
                try expectSuccess(
                    cluster.martlet(
                        "service", "create", "--name", "far", "--constraint", "zone==b", "busybox", "sleep", "1000"))
                try eventually("it says why") {
                    try cluster.martlet("service", "ps", "far").output.contains("0 of 1 node: constraint zone==b on 1")
                }
                try expectSuccess(cluster.martlet("node", "label", name, "zone=b"))
                try expectSuccess(cluster.martlet("service", "wait", "far", "--timeout", "30"))
            }
        }

        @Test("down --all removes no folder that is not a cluster's, and takes nothing from a cluster elsewhere")
        func downElsewhere() throws {
            try withCluster { cluster in
                try expectSuccess(cluster.martlet("run", "-d", "--name", "kept", "busybox", "sleep", "1000"))
                try eventually("it runs") { try cluster.inspect("kept").status.phase == .running }
                let other = cluster.folder + "/other"
                try File.makeDirectories(other)
                try File.replace(other + "/precious", with: [1])
                // Names that anybody's folder may have.
                for name in ["images", "store", "netns"] { try File.makeDirectories("\(other)/\(name)") }
                let places = [
                    (["--data-dir", other], "is not known as martlet's"),
                    (["--run-dir", other], "is not known as martlet's"),
                    (["--data-dir", "other"], "is not absolute"), (["--data-dir", "/"], "below /"),
                    (["--data-dir", other + "/../other"], "'..'"),
                ]
                for (flags, words) in places {
                    let free = flags[0] == "--run-dir" ? "--data-dir" : "--run-dir"
                    let outcome = try cluster.run(["down", "--all", free, cluster.folder + "/nothing"] + flags)
                    #expect(outcome.code != 0 && outcome.errors.contains(words), "\(outcome)")
                }
                #expect(try Set(File.list(other)) == ["precious", "images", "store", "netns"])
                #expect(try cluster.inspect("kept").status.phase == .running)

                // What else lies in the cluster's own folder stays, and it with it.
                try File.replace(cluster.dataDirectory + "/precious", with: [1])
                let own = ["--data-dir", cluster.dataDirectory, "--run-dir", cluster.runDirectory]
                let outcome = try cluster.run(["down", "--all"] + own)
                try expectSuccess(outcome)
                #expect(outcome.output.contains("\(cluster.dataDirectory) stays"))
                #expect(try File.list(cluster.dataDirectory) == ["precious"])
                #expect(!File.exists(cluster.runDirectory))
            }
        }

        @Test("a second `up` on the same place is refused, and down leaves what up finds again")
        func downAndUp() throws {
            let cluster = try TestCluster()
            defer { cluster.tearDown() }
            try cluster.up()
            try cluster.importImage()
            try expectSuccess(
                cluster.martlet("run", "-d", "--name", "kept", "--restart", "always", "busybox", "sleep", "1000"))
            try eventually("it runs") { try cluster.inspect("kept").status.phase == .running }
            let flags = ["--data-dir", cluster.dataDirectory, "--run-dir", cluster.runDirectory]
            let pid = try cluster.inspect("kept").container.pid
            try expectSuccess(cluster.run(["down"] + flags))
            #expect(try Proc.stat(pid_t(pid))?.hasEnded ?? true, "a plain down stops the pods")
            try cluster.up()
            try eventually("it runs again") {
                let view = try cluster.inspect("kept")
                return view.status.phase == .running && view.container.pid != pid
            }
        }
    }
}

func fetch(_ url: String) throws -> String {
    let curl = Program(
        "/usr/bin/curl",
        [
            "-fsS", "--retry", "50", "--retry-delay", "0", "--retry-all-errors", "--retry-max-time", "20", "--max-time",
            "5", url,
        ],
        environment: ["PATH=/usr/bin:/bin"], timeoutMilliseconds: 30_000)
    let result = try curl.run()
    try #require(result.status == .exited(0), "no page from \(url): \(result.errorText)")
    var text = String(decoding: result.output, as: UTF8.self)
    while text.hasSuffix("\n") { text.removeLast() }
    return text
}
