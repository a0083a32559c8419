import Glibc
import JSON
import Kernel
import Model
import Testing
import Wire

extension SystemSuite {
    @Suite(
        "Pulls through the daemons: killed, cut off, on a full disk, and many beside removals", .serialized,
        .enabled(if: File.exists("/usr/bin/docker-registry"), "needs docker-registry"))
    struct PullFaults {
        /// A registry without logins on a machine of its own, which writes down what it sends.
        private struct LocalRegistry {
            let machine: Machine
            var host: String { "\(machine.address):5000" }
            private var log: String { machine.folder + "/registry.log" }

            init(_ fabric: ClusterFabric) throws {
                machine = try fabric.addMachine("registry", number: 100)
                let lines = [
                    "version: 0.1", "log: {level: error, accesslog: {disabled: false}}",
                    "storage: {filesystem: {rootdirectory: \(machine.folder)/storage}}", "http: {addr: '0.0.0.0:5000'}",
                ]
                try File.replace(
                    machine.folder + "/config.yml", with: Array(lines.joined(separator: "\n").utf8))
                for node in fabric.nodes {
                    let text = #"{"hosts": {"\#(host)": {"plainHTTP": true}}}"#
                    try File.replace(node.registriesFile, with: Array(text.utf8))
                }
            }

            func start() throws -> ChildProcess {
                let process = try machine.begin(
                    ["docker-registry", "serve", machine.folder + "/config.yml"], output: log)
                try eventually("the registry answers") {
                    try machine.run(["curl", "-s", "-o", "/dev/null", "http://\(host)/v2/"]).code == 0
                }
                return process
            }

            /// How many bytes of blobs were sent since the last call, and with which statuses.
            func sentBlobs(from mark: inout Int) throws -> (bytes: Int, statuses: Set<Int>) {
                let lines = try File.text(log, limit: 16 << 20).split(separator: "\n")
                defer { mark = lines.count }
                var sum = (bytes: 0, statuses: Set<Int>())
                // ADDRESS - - [TIME] "GET PATH HTTP/1.1" STATUS BYTES "REFERER" "AGENT"
                for line in lines.dropFirst(mark) where line.contains("\"GET ") && line.contains("/blobs/") {
                    let words = line.split(separator: "\"")
                    let numbers = words.count > 2 ? words[2].split(separator: " ").compactMap { Int($0) } : []
                    guard numbers.count == 2 else { continue }
                    sum.statuses.insert(numbers[0])
                    sum.bytes += numbers[1]
                }
                return sum
            }
        }

        /// All that a machine sends goes at so many megabits a second; nil: as fast as it can.
        private func limit(_ machine: Machine, megabits: Int?) throws {
            _ = try machine.run(["tc", "qdisc", "del", "dev", "eth0", "root"])
            guard let megabits else { return }
            try expectSuccess(
                machine.run([
                    "tc", "qdisc", "add", "dev", "eth0", "root", "tbf", "rate", "\(megabits)mbit", "burst", "128k",
                    "latency", "200ms",
                ]))
        }

        /// Makes an image of the root file system and a file that does not compress.
        private func importLarge(_ fabric: ClusterFabric, _ name: String, megabytes: Int, on node: Machine) throws {
            let archive = fabric.folder + "/large.tar"
            let script =
                "cp \"$0\" large.tar && head -c \(megabytes << 20) /dev/urandom >large && tar -rf large.tar ./large"
            var program = Program("/bin/sh", ["-c", "cd '\(fabric.folder)' && \(script)", TestCluster.rootfs])
            program.environment = ["PATH=/usr/bin:/bin"]
            let result = try program.run()
            try #require(result.status == .exited(0), "\(result.errorText)")
            try expectSuccess(fabric.martlet("image", "import", "--name", name, "--node", node.name, archive))
            try File.removeFile(archive)
        }

        /// Bytes of what a node has begun to fetch.
        private func begun(_ node: Machine) -> Int {
            let folder = node.dataDirectory + "/images/downloads"
            return ((try? File.list(folder)) ?? []).reduce(0) { sum, name in
                var info = stat()
                return lstat("\(folder)/\(name)", &info) == 0 ? sum + Int(info.st_size) : sum
            }
        }

        private func expectRuns(_ fabric: ClusterFabric, _ image: String, on node: Machine) throws {
            let outcome = try fabric.run(
                [
                    "run", "--rm", "--pull", "never", "--constraint", "node.name==\(node.name)", image, "sh", "-c",
                    "test -s /large && echo it runs",
                ])
            #expect(outcome.text == "it runs", "\(outcome)")
        }

        @Test("an agent, and then the registry, is killed in the middle of a pull: what came is not asked for again")
        func killed() throws {
            let fabric = try ClusterFabric(nodes: 1)
            defer { fabric.tearDown() }
            let node = fabric.nodes[0]
            try fabric.startMaster()
            try fabric.join(node)
            let registry = try LocalRegistry(fabric)
            let serving = try registry.start()
            let (megabyte, size) = (1 << 20, 40)
            let image = "\(registry.host)/team/large:1"
            try importLarge(fabric, image, megabytes: size, on: node)
            try expectSuccess(fabric.martlet("push", image))
            try expectSuccess(fabric.martlet("image", "rm", image))
            var mark = 0
            _ = try registry.sentBlobs(from: &mark)
            try limit(registry.machine, megabits: 40)

            let output = fabric.folder + "/pull.txt"
            let first = try fabric.begin(["pull", image], output: output)
            try eventually("much of it has come") { begun(node) > 12 * megabyte }
            try node.kill("agent")
            #expect(try first.wait() != .exited(0))
            let words = try File.text(output).split(separator: "\n")
            #expect(words.last?.hasPrefix("martlet: ") == true, "\(words)")
            let kept = begun(node)
            #expect(kept > 12 * megabyte)
            try eventually("the registry has written down what it sent") {
                var here = mark
                return try registry.sentBlobs(from: &here).bytes > 0
            }
            _ = try registry.sentBlobs(from: &mark)
            try fabric.startAgent(node)
            #expect(begun(node) == kept)
            try eventually("the node is ready") {
                try fabric.nodeViews()[0].conditions.contains { $0.kind == .ready && $0.holds }
            }

            let second = try fabric.begin(["pull", image], output: output)
            try eventually("more of it has come") { begun(node) > kept + 8 * megabyte }
            try serving.signal(SIGKILL)
            let between = begun(node)
            let again = try registry.start()
            try limit(registry.machine, megabits: nil)
            let ending = try second.wait()
            let told = try File.text(output)
            #expect(ending == .exited(0), "\(told)")
            let sent = try registry.sentBlobs(from: &mark)
            // The one that was killed has not written down what it sent; the new one was asked for the rest only.
            #expect(sent.statuses.contains(206), "\(sent)")
            #expect(sent.bytes < (size + 2) * megabyte - between + megabyte, "\(sent) after \(between)")
            #expect(begun(node) == 0)
            try expectRuns(fabric, image, on: node)
            try again.signal(SIGKILL)
        }

        @Test("a disk that fills up in the middle: refused in a sentence, the space given back, the node goes on")
        func fullDisk() throws {
            let fabric = try ClusterFabric(nodes: 2)
            defer { fabric.tearDown() }
            let (large, small) = (fabric.nodes[0], fabric.nodes[1])
            try File.makeDirectories(small.dataDirectory)
            try expectSuccess(
                small.run(["mount", "-t", "tmpfs", "-o", "size=100m", "tmpfs", small.dataDirectory]))
            try fabric.startMaster()
            for node in fabric.nodes { try fabric.join(node) }
            let registry = try LocalRegistry(fabric)
            let serving = try registry.start()
            try fabric.importImage(on: small)
            let image = "\(registry.host)/team/large:1"
            // Until it is in the registry only: the cluster would copy it there by itself.
            try expectSuccess(fabric.martlet("node", "cordon", small.name))
            try importLarge(fabric, image, megabytes: 60, on: large)
            try expectSuccess(fabric.martlet("push", image))
            try expectSuccess(fabric.martlet("image", "rm", image))
            try expectSuccess(fabric.martlet("node", "activate", small.name))
            func used() throws -> Int {
                let outcome = try small.run(["df", "--output=used", "-k", small.dataDirectory])
                return outcome.text.split(separator: "\n").last.flatMap { Int($0.filter(\.isNumber)) } ?? 0
            }
            let onSmall = ["--constraint", "node.name==\(small.name)"]
            try expectSuccess(fabric.run(["run", "-d", "--name", "kept"] + onSmall + ["busybox", "sleep", "1000"]))
            let before = try used()

            let refused = try fabric.martlet("pull", "--node", small.name, image)
            #expect(refused.code == 1 && refused.errors.contains("no space left"), "\(refused)")
            #expect(!refused.errors.contains("NIO") && refused.errors.contains(image), "\(refused)")
            try eventually("the space is given back") { try used() < before + 3 << 10 }
            try expectSuccess(fabric.martlet("exec", "kept", "true"))
            try expectSuccess(fabric.run(["run", "--rm"] + onSmall + ["busybox", "true"]))

            try expectSuccess(small.run(["mount", "-o", "remount,size=400m", small.dataDirectory]))
            try expectSuccess(fabric.martlet("pull", "--node", small.name, image))
            try expectRuns(fabric, image, on: small)
            try serving.signal(SIGKILL)
        }

        @Test("a node that falls silent in the middle of a fetch is left for the other that has the image")
        func silentPeer() throws {
            let fabric = try ClusterFabric(nodes: 3)
            defer { fabric.tearDown() }
            try fabric.startMaster()
            for node in fabric.nodes { try fabric.join(node) }
            let (holders, third) = (Array(fabric.nodes[..<2]), fabric.nodes[2])
            // Nobody else gets the second copy.
            try expectSuccess(fabric.martlet("node", "cordon", third.name))
            try importLarge(fabric, "large", megabytes: 40, on: holders[0])
            try eventually("two nodes have it") {
                try fabric.decoded([ImageView].self, ["image", "ls", "--format", "json"]).first?.nodes.count == 2
            }
            try expectSuccess(fabric.martlet("node", "activate", third.name))
            for node in holders { try limit(node, megabits: 40) }
            let output = fabric.folder + "/run.txt"
            let running = try fabric.begin(
                ["run", "--rm", "--constraint", "node.name==\(third.name)", "large", "echo", "it runs"],
                output: output)
            try eventually("some of it has come") { begun(third) > 6 << 20 }
            let serving = try #require(
                try holders.first { holder in
                    let sockets = try third.run(["ss", "-Htn", "state", "established", "dst", holder.address]).text
                    // The queue of received bytes, its own address, and that of the other side.
                    return sockets.split(separator: "\n").contains { $0.contains("\(holder.address):7071") }
                })
            try fabric.partition(serving, from: third)
            for node in holders { try limit(node, megabits: nil) }
            let ending = try running.wait()
            let told = try File.text(output)
            #expect(ending == .exited(0) && told == "it runs", "\(told)")
        }

        @Test("50 runs of different images at once, beside removals and collections: each runs, or says why not")
        func many() throws {
            let fabric = try ClusterFabric(nodes: 2)
            defer { fabric.tearDown() }
            try fabric.startMaster()
            for node in fabric.nodes { try fabric.join(node) }
            let registry = try LocalRegistry(fabric)
            let serving = try registry.start()
            let images = (1...50).map { "\(registry.host)/team/many:\($0)" }
            // Alike in their layer, and each with its own configuration: what one loses, the next one may need.
            for (number, image) in images.enumerated() {
                try expectSuccess(
                    fabric.martlet("image", "import", "--name", image, "--env", "NUMBER=\(number)", TestCluster.rootfs))
                try expectSuccess(fabric.martlet("push", "-q", image))
                try expectSuccess(fabric.martlet("image", "rm", image))
            }
            let collecting = try fabric.nodes.map { node in
                let collect =
                    "curl -fsS -o /dev/null --json '{\"keep\": []}' --unix-socket \(node.runDirectory)/agent.sock "
                    + "http://agent/node/v1/collect && echo done >>\(node.folder)/collected"
                return try Looping(node.begin(["sh", "-c", "while :; do \(collect); sleep 0.2; done"]))
            }
            var program = "while :; do for i in"
            for image in images { program += " \(image)" }
            program += "; do \(TestCluster.martlet) image rm $i >/dev/null 2>&1; sleep 0.3; done; done"
            let removing = Looping(
                try fabric.master.begin(["sh", "-c", program], environment: ["MARTLET_HOST=\(fabric.master.socket)"]))
            func output(_ number: Int) -> String { "\(fabric.folder)/run-\(number).txt" }
            let runs = try images.enumerated().map { number, image in
                Looping(
                    try fabric.begin(["run", "--rm", image, "sh", "-c", "echo number $NUMBER"], output: output(number)))
            }
            var refused: [Int] = []
            for (number, run) in runs.enumerated() {
                let status = try run.process.wait()
                let text = try File.text(output(number))
                if status == .exited(0) {
                    #expect(text.split(separator: "\n").last == "number \(number)", "\(text)")
                } else {
                    // Removed between the pull and the container, or before the container's node had it.
                    #expect(text.contains("many:\(number + 1)"), "\(number): \(text)")
                    refused.append(number)
                }
            }
            for loop in [removing] + collecting { try loop.end() }
            for node in fabric.nodes {
                let collections = try File.text("\(node.folder)/collected").split(separator: "\n").count
                #expect(collections > 10, "collections on \(node.name)")
            }
            #expect(refused.count < 25, "\(refused.count) of 50 runs were refused")
            for number in refused {
                let outcome = try fabric.martlet("run", "--rm", images[number], "sh", "-c", "echo number $NUMBER")
                #expect(outcome.text == "number \(number)", "\(outcome)")
            }
            try serving.signal(SIGKILL)
        }

        /// A process that can be in an array.
        private final class Looping {
            let process: ChildProcess

            init(_ process: consuming ChildProcess) { self.process = process }

            func end() throws {
                try process.signal(SIGKILL)
                _ = try process.wait()
            }
        }
    }
}
