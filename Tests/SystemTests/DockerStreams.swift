import Glibc
import Kernel
import Model
import Testing
import Wire

/// The docker CLI's streams against a cluster: attach, exec, logs and cp.
extension SystemSuite {
    @Suite(.enabled(if: File.exists("/usr/bin/docker") || File.exists("/usr/local/bin/docker"), "needs the docker CLI"))
    struct DockerStreams {
        /// Runs `docker …` against the cluster.
        @discardableResult
        private func docker(_ cluster: TestCluster, _ arguments: [String], input: [UInt8] = []) throws -> Outcome {
            try shell(cluster, "exec docker \"$@\"", arguments, input: input)
        }

        private func shell(
            _ cluster: TestCluster, _ script: String, _ arguments: [String] = [], input: [UInt8] = []
        ) throws -> Outcome {
            var program = Program("/bin/bash", ["-c", script, "bash"] + arguments)
            program.environment = [
                "DOCKER_HOST=unix://\(cluster.runDirectory)/martlet.sock", "HOME=\(cluster.folder)",
                "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm",
            ]
            program.input = input
            program.timeoutMilliseconds = 60_000
            program.outputLimit = 64 << 20
            let result = try program.run()
            return Outcome(
                code: result.status.shellCode, output: String(decoding: result.output, as: UTF8.self),
                errors: String(decoding: result.errors, as: UTF8.self),
                what: "docker: \(script) \(arguments.joined(separator: " "))")
        }

        /// Runs `docker …` at a terminal of its own; each line of `keys` is typed a moment after the one before.
        private func terminal(_ cluster: TestCluster, _ arguments: [String], keys: [String]) throws -> Outcome {
            let typed = keys.map { "sleep 1; printf '\($0)'" }.joined(separator: "; ")
            let command = (["docker"] + arguments).map { "'\($0)'" }.joined(separator: " ")
            return try shell(cluster, "(\(typed); sleep 1) | script -qec \"\(command)\" /dev/null")
        }

        @Test func inputEndsWhenTheClientsDoes() throws {
            try withCluster { cluster in
                let text = String(repeating: "line\n", count: 20_000)
                let outcome = try docker(
                    cluster, ["run", "--rm", "-i", "busybox", "sh", "-c", "cat; echo end >&2; exit 3"],
                    input: Array(text.utf8))
                #expect(outcome.code == 3, "\(outcome)")
                #expect(outcome.output == text)
                #expect(outcome.errors == "end\n")
            }
        }

        @Test func execTellsHowItsProgramEnded() throws {
            try withCluster { cluster in
                try expectSuccess(docker(cluster, ["run", "-d", "--name", "cc", "busybox", "sleep", "1000"]))
                let both = try docker(cluster, ["exec", "cc", "sh", "-c", "echo out; echo err >&2; exit 5"])
                #expect(both.code == 5)
                #expect(both.output == "out\n")
                #expect(both.errors == "err\n")
                #expect(try docker(cluster, ["exec", "-i", "cc", "cat"], input: Array("in".utf8)).output == "in")
                #expect(try docker(cluster, ["exec", "cc", "nosuch"]).code == 127)
                #expect(try docker(cluster, ["exec", "cc", "/etc/passwd"]).code == 126)
                try expectSuccess(docker(cluster, ["exec", "-d", "cc", "touch", "/tmp/made"]))
                try eventually("the program in the background has run") {
                    try docker(cluster, ["exec", "cc", "test", "-e", "/tmp/made"]).code == 0
                }
                let options = try docker(
                    cluster, ["exec", "-w", "/tmp", "-u", "12", "-e", "A=b", "cc", "sh", "-c", "id -u; pwd; echo $A"])
                #expect(options.output == "12\n/tmp\nb\n")
                let tty = try terminal(cluster, ["exec", "-it", "cc", "sh"], keys: ["tty; exit 6\\n"])
                #expect(tty.output.contains("/dev/pts/"), "\(tty)")
                #expect(tty.code == 6)
                try expectSuccess(docker(cluster, ["pause", "cc"]))
                #expect(try docker(cluster, ["exec", "cc", "true"]).errors.contains("is paused, unpause"))
                try expectSuccess(docker(cluster, ["kill", "cc"]))
                #expect(try docker(cluster, ["exec", "cc", "true"]).errors.contains("is not running"))
            }
        }

        @Test func aTerminalIsLeftByKeysAndJoinedAgain() throws {
            try withCluster { cluster in
                let left = try terminal(
                    cluster, ["run", "-it", "--name", "tt", "busybox", "sh"], keys: ["A=kept\\n", "\\020\\021"])
                #expect(left.code == 0, "\(left)")
                #expect(try cluster.inspect("tt").container.state == .running)
                let again = try terminal(cluster, ["attach", "tt"], keys: ["echo $A$((1+1)); exit 4\\n"])
                #expect(again.output.contains("kept2"), "\(again)")
                #expect(again.code == 4)
            }
        }

        @Test func logsAreFollowedAndCut() throws {
            try withCluster { cluster in
                let script = "for i in 1 2 3; do echo $i; done; echo e >&2; sleep 3; echo last"
                try expectSuccess(docker(cluster, ["run", "-d", "--name", "ll", "busybox", "sh", "-c", script]))
                #expect(try docker(cluster, ["logs", "-f", "ll"]).output == "1\n2\n3\nlast\n")
                #expect(try docker(cluster, ["logs", "ll"]).errors == "e\n")
                #expect(try docker(cluster, ["logs", "--tail", "1", "ll"]).output == "last\n")
                #expect(try docker(cluster, ["logs", "--since", "1h", "ll"]).output == "1\n2\n3\nlast\n")
                #expect(try docker(cluster, ["logs", "--until", "1h", "ll"]).output.isEmpty)
                let timed = try docker(cluster, ["logs", "-t", "--tail", "1", "ll"]).output
                #expect(timed.hasSuffix("Z last\n"))
                #expect(timed.utf8.count == 30 + 1 + 5)
            }
        }

        @Test func filesAreCopiedBothWays() throws {
            try withCluster { cluster in
                let folder = "\(cluster.folder)/files"
                try File.makeDirectories("\(folder)/d/e")
                try File.replace("\(folder)/d/e/f", with: Array("text".utf8))
                try expectSuccess(docker(cluster, ["create", "--name", "cc", "busybox", "sleep", "1000"]))
                for isRunning in [false, true] {
                    if isRunning { try expectSuccess(docker(cluster, ["start", "cc"])) }
                    try expectSuccess(docker(cluster, ["cp", "\(folder)/d", "cc:/tmp/in\(isRunning)"]))
                    try expectSuccess(
                        docker(cluster, ["cp", "-a", "cc:/tmp/in\(isRunning)/.", "\(folder)/out\(isRunning)"]))
                    #expect(try File.text("\(folder)/out\(isRunning)/e/f") == "text")
                    let tar = try docker(cluster, ["cp", "cc:/tmp/in\(isRunning)/e/f", "-"])
                    #expect(tar.code == 0)
                    #expect(tar.output.contains("text"))
                }
                try expectSuccess(docker(cluster, ["exec", "cc", "ln", "-s", "inTrue/e/f", "/tmp/link"]))
                let missing = try docker(cluster, ["cp", "cc:/nosuch", folder])
                #expect(missing.code == 1)
                #expect(missing.errors.contains("/nosuch in container cc"), "\(missing)")
                // A directory is not put over a file.
                #expect(try docker(cluster, ["cp", "\(folder)/d", "cc:/tmp/infalse/e/f"]).code == 1)
                try expectSuccess(docker(cluster, ["create", "--read-only", "--name", "ro", "busybox", "true"]))
                #expect(try docker(cluster, ["cp", "\(folder)/d", "ro:/tmp"]).errors.contains("marked read-only"))
            }
        }

        @Test func tenClientsComeAtOnce() throws {
            try withCluster { cluster in
                try expectSuccess(docker(cluster, ["run", "-d", "--name", "cc", "busybox", "sleep", "1000"]))
                let script = """
                    for i in 0 1 2 3 4 5 6 7 8 9; do (seq 1 5000 | docker exec -i cc cat | md5sum) & done; wait
                    """
                let sums = try shell(cluster, script).output.split(separator: "\n")
                #expect(sums.count == 10)
                #expect(Set(sums).count == 1)
                #expect(try shell(cluster, "seq 1 5000 | md5sum").text == sums.first.map(String.init))
            }
        }
    }
}
