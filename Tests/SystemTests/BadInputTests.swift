import Glibc
import JSON
import Kernel
import Model
import Testing
import Wire

extension SystemSuite {
    @Suite("Bad input: one clear sentence, nothing created, no daemon gone", .serialized)
    struct BadInput {
        /// Status and body of a request that curl makes, so that nothing of ours mends it.
        private func request(
            _ cluster: TestCluster, _ method: String, _ path: String, _ body: [UInt8]? = nil, _ more: [String] = []
        ) throws -> (status: Int, body: String) {
            var arguments = [
                "-sS", "--max-time", "30", "--unix-socket", "\(cluster.runDirectory)/martlet.sock", "-X", method, "-w",
                "\n%{http_code}",
            ]
            if body != nil {
                arguments += ["-H", "Content-Type: application/json", "-H", "Expect:", "--data-binary", "@-"]
            }
            var curl = Program(
                "/usr/bin/curl", arguments + more + ["http://localhost\(path)"], environment: ["PATH=/usr/bin:/bin"])
            curl.input = body ?? []
            let result = try curl.run()
            let text = String(decoding: result.output, as: UTF8.self)
            let lines = text.split(separator: "\n", omittingEmptySubsequences: false)
            return (Int(lines.last ?? "") ?? 0, lines.dropLast().joined(separator: "\n"))
        }

        @Test("the API: wrong types, unknown fields, too large, too deep, broken text")
        func api() throws {
            let cluster = try TestCluster()
            defer { cluster.tearDown() }
            try cluster.up()
            try cluster.importImage()
            let cases: [(String, String, [UInt8], Int, String)] = [
                (
                    "unknown field", "/api/v1/containers",
                    Array(#"{"pod":{"containers":[{"image":"busybox"}]},"colour":"red"}"#.utf8), 400, "colour"
                ),
                (
                    "deep unknown field", "/api/v1/containers",
                    Array(#"{"pod":{"containers":[{"image":"busybox","mem":1}]}}"#.utf8), 400, "mem"
                ),
                (
                    "wrong type", "/api/v1/containers", Array(#"{"pod":{"containers":"many"}}"#.utf8), 400,
                    "$.pod.containers"
                ),
                (
                    "missing field", "/api/v1/services", Array(#"{"pod":{"containers":[{"image":"busybox"}]}}"#.utf8),
                    400, "name"
                ),
                ("no JSON", "/api/v1/services", Array("hello".utf8), 400, ""),
                ("empty", "/api/v1/services", [], 400, ""),
                (
                    "too deep", "/api/v1/services",
                    Array((String(repeating: "[", count: 100) + String(repeating: "]", count: 100)).utf8), 400, "deep"
                ),
                (
                    "invalid UTF-8", "/api/v1/services", Array(#"{"name":""#.utf8) + [0xFF, 0xFE] + Array(#""}"#.utf8),
                    400, "UTF-8"
                ),
                ("too large", "/api/v1/services", [UInt8](repeating: 32, count: (4 << 20) + 1), 413, ""),
                (
                    "no such image", "/api/v1/containers",
                    Array(#"{"pull":"never","pod":{"containers":[{"image":"nowhere:1"}]}}"#.utf8), 404, "nowhere:1"
                ),
                (
                    "a bad name", "/api/v1/containers",
                    Array(#"{"name":"../x","pod":{"containers":[{"image":"busybox"}]}}"#.utf8), 400, "name"
                ),
                (
                    "two containers", "/api/v1/containers",
                    Array(#"{"pod":{"containers":[{"image":"busybox"},{"name":"b","image":"busybox"}]}}"#.utf8), 400,
                    "container"
                ),
            ]
            for (what, path, body, status, word) in cases {
                let answer = try request(cluster, "POST", path, body)
                #expect(answer.status == status, "\(what): \(answer)")
                #expect(answer.body.contains(word) && answer.body.contains("message"), "\(what): \(answer.body)")
            }
            #expect(try request(cluster, "GET", "/api/v1/nothing").status == 404)
            #expect(try request(cluster, "PATCH", "/api/v1/containers").status == 405)
            #expect(try request(cluster, "GET", "/api/v1/containers/none").status == 404)
            #expect(try cluster.containers().isEmpty)
            try expectSuccess(cluster.martlet("run", "--rm", "busybox", "true"))
        }

        @Test("flags")
        func flags() throws {
            let cluster = try TestCluster()
            defer { cluster.tearDown() }
            try cluster.up()
            try cluster.importImage()
            let cases: [([String], String)] = [
                (["run", "--memory", "much", "busybox"], "--memory"),
                (["run", "--memory", "1k", "busybox", "true"], "memory"),
                (["run", "-p", "0:99999", "busybox", "true"], "-p"),
                (["run", "-v", "relative:path", "busybox", "true"], "-v"),
                (["run", "-v", "/does/not/exist:/x", "busybox", "true"], "/does/not/exist"),
                (["run", "--cap-add", "FLY", "busybox", "true"], "FLY"),
                (["run", "--security-opt", "apparmor=x", "busybox", "true"], "apparmor"),
                (["run", "--cap-add", "NO_SUCH", "busybox", "true"], "NO_SUCH"),
                (["run", "--restart", "often", "busybox", "true"], "--restart"),
                (["run", "--rm", "--restart", "always", "busybox", "true"], "restart"),
                (["run", "-w", "relative", "busybox", "true"], "--workdir"),
                (["run", "--env", "=x", "busybox", "true"], "--env"),
                (["stop", "nobody"], "nobody"),
                (["service", "scale", "web"], "SERVICE=NUMBER"),
                (["frobnicate"], "frobnicate"),
                (["ps", "--format", "{{.Nothing}}"], "nothing"),
                (["cp", "a", "b"], "CONTAINER:PATH"),
            ]
            for (arguments, word) in cases {
                let outcome = try cluster.run(arguments)
                #expect(outcome.code != 0, "\(outcome)")
                #expect(outcome.errors.contains(word), "\(outcome)")
            }
            let missing = try cluster.martlet("run", "--rm", "busybox", "no-such-program")
            #expect(missing.code == 127 && missing.errors.contains("no-such-program"), "\(missing)")
            let notExecutable = try cluster.martlet("run", "--rm", "busybox", "/etc/passwd")
            #expect(notExecutable.code == 126, "\(notExecutable)")
            try eventually("nothing is left of them") {
                try cluster.containers().allSatisfy { $0.status.phase != .running }
            }
        }

        @Test("images: traversal, truncation and garbage leave nothing, inside or outside")
        func images() throws {
            let cluster = try TestCluster()
            defer { cluster.tearDown() }
            try cluster.up()
            let script = """
                import io, sys, tarfile, gzip
                folder = sys.argv[1]
                def tar(name, members):
                    with tarfile.open(folder + "/" + name, "w") as t:
                        for info, data in members:
                            i = tarfile.TarInfo(info["name"])
                            i.type = info.get("type", tarfile.REGTYPE); i.linkname = info.get("link", "")
                            i.size = len(data); i.mode = 0o755
                            t.addfile(i, io.BytesIO(data))
                c = folder + "/canary"
                tar("dots.tar", [({"name": "../../../../../../../../.." + c + "/dots"}, b"x")])
                tar("absolute.tar", [({"name": c + "/absolute"}, b"x")])
                tar("symlink.tar", [({"name": "l", "type": tarfile.SYMTYPE, "link": c}, b""), ({"name": "l/through"}, b"x")])
                tar("hardlink.tar", [({"name": "h", "type": tarfile.LNKTYPE, "link": "/etc/passwd"}, b"")])
                open(folder + "/garbage.tar", "wb").write(b"no tar at all" * 1000)
                open(folder + "/empty.tar", "wb").write(b"")
                whole = open(sys.argv[2], "rb").read()
                open(folder + "/truncated.tar", "wb").write(whole[:len(whole) // 2])
                """
            try File.makeDirectories(cluster.folder + "/canary")
            let python = Program(
                "/usr/bin/python3", ["-c", script, cluster.folder, TestCluster.rootfs],
                environment: ["PATH=/usr/bin:/bin"])
            let made = try python.run()
            try #require(made.status == .exited(0), "\(made.errorText)")
            for name in ["hardlink", "garbage", "empty", "truncated"] {
                let outcome = try cluster.martlet(
                    "image", "import", "--name", "bad-\(name)", "\(cluster.folder)/\(name).tar")
                if outcome.code == 0 {
                    // Some are sound archives with a hostile meaning: what counts is what running them does.
                    _ = try cluster.martlet("run", "--rm", "bad-\(name)", "/x")
                } else {
                    #expect(outcome.errors.hasPrefix("martlet: "), "\(outcome)")
                }
            }
            for name in ["dots", "absolute", "symlink"] {
                _ = try cluster.martlet("image", "import", "--name", "bad-\(name)", "\(cluster.folder)/\(name).tar")
                _ = try cluster.martlet("run", "--rm", "bad-\(name)", "/x")
            }
            #expect(try File.list(cluster.folder + "/canary").isEmpty)
            let load = try cluster.martlet("image", "load", "--input", "\(cluster.folder)/garbage.tar")
            #expect(load.code == 1 && !load.errors.isEmpty)
            try cluster.importImage()
            try expectSuccess(cluster.martlet("run", "--rm", "busybox", "true"))
        }
    }
}
