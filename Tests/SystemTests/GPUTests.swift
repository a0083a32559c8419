import Glibc
import JSON
import Kernel
import Model
import Testing
import Wire

extension SystemSuite {
    @Suite("GPUs", .serialized) struct GPUs {
        /// Opens device nodes that the container makes itself: `ENXIO` is a device that may be used and that nothing answers
        /// for, `EPERM` one that may not.
        private static let probe = """
            for minor in 0 1 2 255; do
              mknod /tmp/n$minor c 195 $minor 2>/dev/null
              for node in /dev/nvidia$minor /dev/nvidiactl /tmp/n$minor; do
                [ -e $node ] && echo $node $(head -c 0 $node 2>&1 | sed 's/.*: //')
              done
            done | sort -u
            """

        @Test("A GPU of the node is given by its CDI name without any toolkit, and no other one with it")
        func named() throws {
            let cluster = try TestCluster()
            defer { cluster.tearDown() }
            _ = try FakeGPUs(3, of: cluster)
            try cluster.up()
            try cluster.importImage()
            let file = "\(cluster.deviceDirectory)/nvidia.com-gpu_martlet.json"
            try eventually("the node's specification is there") { File.exists(file) }
            let probe = ["busybox", "sh", "-c", Self.probe]
            let run = ["run", "--rm", "--cap-add", "MKNOD"]
            // The first by address has the minor 2.
            let first = try cluster.run(run + ["--device", "nvidia.com/gpu=0"] + probe).text
            #expect(
                first.split(separator: "\n") == [
                    "/dev/nvidia2 No such device or address", "/dev/nvidiactl No such device or address",
                    "/tmp/n0 Operation not permitted", "/tmp/n1 Operation not permitted",
                    "/tmp/n2 No such device or address", "/tmp/n255 No such device or address",
                ], "\(first)")
            // What a user or an image writes there steers nothing.
            let none = try cluster.run(run + ["-e", "NVIDIA_VISIBLE_DEVICES=all"] + probe).text
            #expect(
                none.split(separator: "\n") == ["0", "1", "2", "255"].map { "/tmp/n\($0) Operation not permitted" },
                "\(none)")
            let held = ["run", "-d", "--name", "held", "--device", "nvidia.com/gpu=0", "--memory", "64m", "busybox"]
            try expectSuccess(cluster.run(held + ["sleep", "1000"]))
            let inside = ["exec", "held", "sh", "-c", Self.probe]
            #expect(try cluster.run(inside).text == first, "another process of it has the same")
            try expectSuccess(cluster.martlet("update", "--memory", "96m", "held"))
            #expect(try cluster.run(inside).text == first, "and so it is with other limits")
            try expectSuccess(cluster.martlet("restart", "-t", "0", "held"))
            #expect(try cluster.run(inside).text == first, "and after a restart")
            let library = ["busybox", "sh", "-c", "cat /usr/lib64/libcuda.so.1; echo >/usr/lib64/libcuda.so.1"]
            let outcome = try cluster.run(["run", "--rm", "--device", "nvidia.com/gpu=all"] + library)
            #expect(outcome.text == "a library" && outcome.errors.contains("Read-only"), "\(outcome)")
        }

        @Test("A container that runs is given GPUs and gives them back, and what it has opened of them stays open")
        func changed() throws {
            let cluster = try TestCluster()
            defer { cluster.tearDown() }
            let gpus = try FakeGPUs(3, of: cluster)
            try cluster.up()
            try cluster.importImage()
            try eventually("the node tells of its devices") {
                try cluster.martlet("device", "ls", "--quiet").text.split(separator: "\n").count == 3
            }
            let options = ["run", "-d", "--name", "train", "--cap-add", "MKNOD", "busybox", "sleep", "1000"]
            try expectSuccess(cluster.run(options))
            let started = try cluster.inspect("train").container.startedAt
            /// What it may open, by nodes that it made itself and by those that it was given.
            func open() throws -> Set<String> {
                let text = try cluster.run(["exec", "train", "sh", "-c", Self.probe]).text
                return Set(
                    text.split(separator: "\n").filter { $0.hasSuffix("No such device or address") }
                        .compactMap { $0.split(separator: " ").first.map(String.init) })
            }
            func change(_ claim: String) throws {
                try expectSuccess(cluster.martlet("update", "--gpus", claim, "train"))
            }
            #expect(try open() == [])
            let (first, second) = (gpus.minor(1), gpus.minor(0))
            try change("id=\(FakeGPUs.uuid(1))")
            #expect(try open() == ["/dev/nvidia\(first)", "/dev/nvidiactl", "/tmp/n\(first)", "/tmp/n255"])
            let library = ["exec", "train", "sh", "-c", "cat /usr/lib64/libcuda.so.1; echo > /usr/lib64/libcuda.so.1"]
            let outcome = try cluster.run(library)
            #expect(outcome.text == "a library" && outcome.errors.contains("Read-only"), "\(outcome)")
            try change("count=2")
            let two = try open()
            #expect(two.isSuperset(of: ["/dev/nvidia\(first)", "/tmp/n\(first)"]) && two.count == 6, "\(two)")
            try change("id=\(FakeGPUs.uuid(0))")
            let other = ["/dev/nvidia\(second)", "/dev/nvidiactl", "/tmp/n\(second)", "/tmp/n255"]
            #expect(try open() == Set(other))
            // The agent that comes next has the same in mind, and its changes begin from there.
            try cluster.kill("up")
            try cluster.up()
            try eventually("the node tells of its devices again") {
                try cluster.martlet("device", "ls", "--quiet").text.split(separator: "\n").count == 3
            }
            #expect(try open() == Set(other))
            try expectSuccess(cluster.run(["run", "-d", "--name", "b", "--gpus", "2", "busybox", "sleep", "1000"]))
            let refused = try cluster.martlet("update", "--gpus", "2", "train")
            #expect(refused.code != 0 && refused.errors.contains("too few free gpus (2 wanted)"), "\(refused)")
            try change("none")
            #expect(try open() == [])
            #expect(try cluster.inspect("train").container.startedAt == started, "it has run all the time")
            try expectSuccess(cluster.run(["run", "--rm", "--gpus", "id=\(FakeGPUs.uuid(0))", "busybox", "true"]))
            // What it would start with is what it has.
            try expectSuccess(cluster.martlet("restart", "-t", "0", "train"))
            #expect(try open() == [])
        }

        @Test("Claims of shares have one GPU together, and a claim of the whole waits for both to end")
        func shares() throws {
            let cluster = try TestCluster()
            defer { cluster.tearDown() }
            _ = try FakeGPUs(1, of: cluster)
            let shared = ["up", "--detach"] + cluster.placeFlags + cluster.nodeFlags + ["--device-shares", "all=2"]
            try expectSuccess(cluster.run(shared))
            try cluster.importImage()
            try eventually("the node tells of its device") {
                try !cluster.martlet("device", "ls", "--quiet").text.isEmpty
            }
            for name in ["a", "b"] {
                let options = ["run", "-d", "--name", name, "--gpus", "sharing=share", "busybox", "sleep", "1000"]
                try expectSuccess(cluster.run(options))
                #expect(try cluster.run(["exec", name, "ls", "/dev/nvidia0"]).text == "/dev/nvidia0")
            }
            try expectSuccess(cluster.martlet("create", "--name", "c", "--gpus", "1", "busybox", "sleep", "1000"))
            _ = try cluster.begin(["start", "c"])
            try eventually("it waits") { try cluster.martlet("inspect", "c").output.contains("gpus taken on 1") }
            try expectSuccess(cluster.martlet("rm", "-f", "a", "b"))
            try eventually("it has the whole") {
                try cluster.run(["exec", "c", "ls", "/dev/nvidia0"]).text == "/dev/nvidia0"
            }
        }

        @Test("A GPU that its driver tells an error of is given to nobody, by an agent that starts again neither")
        func sick() throws {
            let cluster = try TestCluster()
            defer { cluster.tearDown() }
            let gpus = try FakeGPUs(2, of: cluster)
            let fifo = "\(gpus.root)/events"
            try systemCall("mkfifo") { mkfifo(fifo, 0o600) }
            let events = try File.open(fifo, O_RDWR)
            try gpus.setFixture("fifo \(fifo)")
            try cluster.up()
            try cluster.importImage()
            let file = "\(cluster.deviceDirectory)/nvidia.com-gpu_martlet.json"
            let (healthy, sick) = (FakeGPUs.uuid(0), FakeGPUs.uuid(1))
            try eventually("both are there") { (try? File.text(file))?.contains(sick) == true }
            func run(_ id: String) throws -> Outcome {
                try cluster.martlet("run", "--rm", "--device", "nvidia.com/gpu=\(id)", "busybox", "true")
            }
            // What a program does to itself, and then what the hardware does.
            try events.writeAll(Array("1 8 31\n".utf8))
            #expect(try run(sick).code == 0)
            try events.writeAll(Array("1 8 79\n".utf8))
            try eventually("it is in no specification") { try !File.text(file).contains(sick) }
            let refused = try run(sick)
            #expect(refused.code != 0 && refused.errors.contains("this node has no CDI device"), "\(refused)")
            #expect(try run(healthy).code == 0)
            try cluster.kill("up")
            try cluster.up()
            try eventually("the agent has looked") { try run(healthy).code == 0 }
            #expect(try run(sick).code != 0)
            // Somebody else's specification goes before ours, wherever it is.
            let theirs = "\(cluster.deviceDirectory)/theirs.json"
            try File.replace(
                theirs,
                with: Array(
                    """
                    {"cdiVersion":"0.5.0","kind":"nvidia.com/gpu","devices":[{"name":"0","containerEdits":{"env":["A=theirs"]}}]}
                    """.utf8), mode: 0o644)
            try eventually("ours is gone") { !File.exists(file) }
            let named = ["run", "--rm", "--device", "nvidia.com/gpu=0", "busybox", "sh", "-c", "echo $A"]
            #expect(try cluster.run(named).text == "theirs")
            try File.removeFile(theirs)
            try eventually("ours is back") { File.exists(file) }
        }

        @Test("A GPU that becomes sick has its service's task replaced on another, and ends what wants to end with it")
        func policies() throws {
            let cluster = try TestCluster()
            defer { cluster.tearDown() }
            let gpus = try FakeGPUs(6, of: cluster)
            let fifo = "\(gpus.root)/events"
            try systemCall("mkfifo") { mkfifo(fifo, 0o600) }
            let events = try File.open(fifo, O_RDWR)
            try gpus.setFixture("fifo \(fifo)")
            try cluster.up()
            try cluster.importImage()
            try eventually("the node tells of its devices") {
                try cluster.martlet("device", "ls", "--quiet").text.split(separator: "\n").count == 6
            }
            func device(_ name: String) throws -> String {
                try cluster.inspect(name).grantedDevices.flatMap(\.devices).joined()
            }
            func index(_ name: String) throws -> Int {
                let id = try device(name)
                return try #require((0..<6).first { FakeGPUs.uuid($0) == id }, "\(name) has \(id)")
            }
            for (name, policy) in [("again", "restart"), ("over", "end"), ("on", "stay")] {
                let options = ["run", "-d", "--name", name, "--gpus", "count=1,on-unhealthy=\(policy)"]
                try expectSuccess(cluster.run(options + ["busybox", "sleep", "1000"]))
            }
            let service = ["service", "create", "--name", "web", "--gpus", "count=1,on-unhealthy=restart", "busybox"]
            try expectSuccess(cluster.run(service + ["sleep", "1000"]))
            try eventually("it runs") { try cluster.inspect("web.1").status.phase == .running }
            let (again, over, on) = (try index("again"), try index("over"), try index("on"))
            let had = Set([again, over, on, try index("web.1")])
            for index in had { try events.writeAll(Array("\(index) 8 79\n".utf8)) }
            try eventually("it is ended, and says why") {
                let view = try cluster.inspect("over")
                return view.status.phase == .exited && view.container.reason.contains("XID 79")
                    && view.container.reason.contains(FakeGPUs.uuid(over))
            }
            #expect(try cluster.martlet("ps", "-a", "--no-trunc").text.contains("its device \(FakeGPUs.uuid(over))"))
            for name in ["again", "web.1"] {
                try eventually("\(name) has another") {
                    let view = try cluster.inspect(name)
                    let ids = view.grantedDevices.flatMap(\.devices)
                    return view.displaced.isEmpty && view.status.phase == .running && ids.count == 1
                        && had.allSatisfy { FakeGPUs.uuid($0) != ids[0] }
                }
                let minor = gpus.minor(try index(name))
                #expect(
                    try cluster.run(["exec", name, "sh", "-c", "ls /dev | grep 'nvidia[0-9]'"]).text == "nvidia\(minor)"
                )
            }
            #expect(try device("on") == FakeGPUs.uuid(on))
            #expect(try cluster.inspect("on").status.phase == .running)
            #expect(try cluster.martlet("ps").text.contains("(device unusable)"))
            // An operator has seen to it.
            let node = try cluster.inspect("on").nodeName
            let clear = ["device", "clear", node, FakeGPUs.uuid(on)]
            let cleared = try cluster.run(clear)
            #expect(cleared.code == 0 && cleared.text.contains("\(FakeGPUs.uuid(on)) is "), "\(cleared)")
            #expect(cleared.text.contains("forgotten: its driver told of XID 79"), "\(cleared)")
            try eventually("all is well") { try !cluster.martlet("ps").text.contains("(device unusable)") }
            let needless = try cluster.run(clear)
            #expect(needless.code != 0 && needless.errors.contains("nothing is to be cleared"), "\(needless)")
            let unknown = try cluster.martlet("device", "clear", node, "GPU-none")
            #expect(unknown.code != 0 && unknown.errors.contains("there is no device 'GPU-none'"), "\(unknown)")
        }

        @Test("An AMD GPU's load, memory, power and heat are shown, and errors that it counts make it suspect")
        func amd() throws {
            let cluster = try TestCluster()
            defer { cluster.tearDown() }
            let gpu = try FakeGPUs(amdOf: cluster)
            try cluster.up()
            try cluster.importImage()
            try eventually("the node tells of its device") {
                try !cluster.martlet("device", "ls", "--quiet").text.isEmpty
            }
            let options = [
                "run", "-d", "--name", "one", "--cap-add", "MKNOD", "--gpus", "vendor=amd", "busybox", "sleep", "1000",
            ]
            try expectSuccess(cluster.run(options))
            #expect(try cluster.run(["exec", "one", "ls", "/dev/dri/renderD128"]).text == "/dev/dri/renderD128")
            try expectRenderNodes(of: "one", cluster)
            let id = try #require(try cluster.inspect("one").grantedDevices.flatMap(\.devices).first)
            try eventually("it is watched") {
                let json = try cluster.martlet("stats", "--no-stream", "--format", "json", "one").output
                let stats = try JSONCoding.decode([ContainerStats].self, from: Array(json.utf8))
                return stats.first?.devices == [
                    DeviceStats(
                        id: id, utilization: 42, memoryUsage: nil, memoryUsedByAll: 1_073_741_824,
                        memory: 68_702_699_520, celsius: 45, milliwatts: 91_000)
                ]
            }
            try gpu.setErrors(2)
            try eventually("it is suspect, and stays whose it is") {
                let text = try cluster.martlet("device", "inspect", id).output
                return text.contains("degraded") && text.contains("2 in umc")
            }
            #expect(try cluster.inspect("one").status.phase == .running)
            let clear = try cluster.martlet("device", "clear", try cluster.inspect("one").nodeName, id)
            #expect(clear.code != 0 && clear.errors.contains("goes with its cause"), "\(clear)")
        }

        /// That the container can open 226:128 and no node beside it, and one without a claim none of them.
        private func expectRenderNodes(of name: String, _ cluster: TestCluster) throws {
            // No driver is behind the numbers: an open that is allowed finds none.
            guard try !File.text("/proc/devices").contains("226 drm") else {
                print("passed over: this machine has a driver for the major 226")
                return
            }
            let open = """
                for minor in 127 128 129; do
                  mknod /tmp/n$minor c 226 $minor
                  head -c 0 /tmp/n$minor 2>&1 | grep -oE 'No such device|Operation not permitted'
                done; true
                """
            func opened(_ arguments: [String]) throws -> [String] {
                try cluster.run(arguments + ["sh", "-c", open]).text.split(separator: "\n").map { String($0) }
            }
            let denied = "Operation not permitted"
            #expect(try opened(["exec", name]) == [denied, "No such device", denied])
            #expect(try opened(["run", "--rm", "--cap-add", "MKNOD", "busybox"]) == [denied, denied, denied])
        }

        @Test("Claims get a GPU each, wait in words for what there is not, and keep theirs through a crash")
        func claims() throws {
            let cluster = try TestCluster()
            defer { cluster.tearDown() }
            let gpus = try FakeGPUs(3, of: cluster)
            try cluster.up()
            try cluster.importImage()
            try eventually("the node tells of its devices") {
                try cluster.martlet("device", "ls", "--quiet").text.split(separator: "\n").count == 3
            }
            func start(_ name: String, _ claim: String) throws {
                let options = ["run", "-d", "--name", name, "--gpus", claim, "--restart", "always"]
                try expectSuccess(cluster.run(options + ["busybox", "sleep", "1000"]))
            }
            func granted(_ name: String) throws -> [String] {
                try cluster.inspect(name).grantedDevices.flatMap(\.devices)
            }
            /// Minors of the nodes that a container has.
            func nodes(_ name: String) throws -> [String] {
                try cluster.run(["exec", name, "sh", "-c", "ls /dev | grep 'nvidia[0-9]'"]).text.split(separator: "\n")
                    .map(String.init)
            }
            try start("one", "1")
            try start("two", "2")
            var held = try granted("one") + granted("two")
            #expect(Set(held) == Set((0..<3).map(FakeGPUs.uuid)), "each has devices of its own")
            #expect(Set(try nodes("one") + nodes("two")) == ["nvidia0", "nvidia1", "nvidia2"])
            let index = try #require((0..<3).first { try granted("one") == [FakeGPUs.uuid($0)] })
            #expect(try nodes("one") == ["nvidia\(gpus.minor(index))"], "the node is its minor's")
            // A name does not get what a claim has.
            let named = try cluster.martlet("run", "--rm", "--device", "nvidia.com/gpu=all", "busybox", "true")
            #expect(named.code != 0 && named.errors.contains("has been claimed"), "\(named)")
            for (name, claim, reason) in [
                ("late", "1", "gpus taken on 1"), ("other", "model=*A100*", "gpu model *A100* on 1"),
                ("larger", "memory>=400g", "gpu memory>=400g on 1"), ("newer", "driver>=999", "gpu driver>=999 on 1"),
            ] {
                let options = ["create", "--name", name, "--gpus", claim, "busybox", "sleep", "1000"]
                try expectSuccess(cluster.run(options))
                _ = try cluster.begin(["start", name])
                try eventually("\(name) waits for a reason") {
                    try cluster.martlet("inspect", name).output.contains(reason)
                }
            }
            let scrape = ["-s", "--unix-socket", "\(cluster.runDirectory)/martlet.sock", "http://localhost/metrics"]
            func metrics() throws -> String {
                let result = try Program("/usr/bin/curl", scrape, environment: ["PATH=/usr/bin:/bin"]).run()
                return String(decoding: result.output, as: UTF8.self)
            }
            try eventually("the metrics tell how each is used") {
                let text = try metrics()
                return (0..<3).allSatisfy {
                    text.contains("martlet_device_memory_bytes{device=\"\(FakeGPUs.uuid($0))\"")
                }
                    && ["one", "two"].allSatisfy {
                        text.contains("martlet_device_task_memory_used_bytes{container=\"\($0)\"")
                    }
            }
            let fraction = try cluster.martlet("run", "--gpus", "0.5", "busybox", "true")
            #expect(fraction.code != 0 && fraction.errors.contains("devices are given whole"), "\(fraction)")
            // What the driver tells the next agent of: each container's process and somebody else's on the GPU of the first
            // one, and the first one's on a GPU that it does not have.
            let (pid, other) = (try cluster.inspect("one").container.pid, try cluster.inspect("two").container.pid)
            let foreign = (index + 1) % 3
            try gpus.setFixture(
                """
                process \(index) \(pid) 512
                process \(index) \(other) 1024
                process \(index) \(getpid()) 2048
                process \(foreign) \(pid) 4096
                process \(foreign) \(other) 256
                """)
            try cluster.kill("up")
            try cluster.up()
            try eventually("all is known again") {
                try cluster.martlet("device", "ls", "--quiet").text.split(separator: "\n").count == 3
            }
            #expect(try granted("one") + granted("two") == held)
            /// What a container's own processes have of each of its GPUs, by id; nothing until somebody has told.
            func memory(_ name: String) throws -> [String: Int64] {
                let json = try cluster.martlet("stats", "--no-stream", "--format", "json", name).output
                let stats = try? JSONCoding.decode([ContainerStats].self, from: Array(json.utf8))
                var memory: [String: Int64] = [:]
                for device in stats?.first?.devices ?? [] { memory[device.id] = device.memoryUsage }
                return memory
            }
            let (own, shared, idle) = (FakeGPUs.uuid(index), FakeGPUs.uuid(foreign), FakeGPUs.uuid((index + 2) % 3))
            let (half, quarter) = (Int64(512 << 20), Int64(256 << 20))
            try eventually("the memory of each is its own processes', on its own GPUs") {
                let (one, two) = (try memory("one"), try memory("two"))
                return one == [own: half] && two == [shared: quarter, idle: 0]
            }
            try eventually("and so it is in the metrics") {
                let lines = try metrics().split(separator: "\n").filter {
                    $0.hasPrefix("martlet_device_task_memory_used_bytes{")
                }
                func told(_ name: String, _ id: String, _ bytes: Int64) -> Bool {
                    lines.contains {
                        $0.contains("container=\"\(name)\"") && $0.contains("device=\"\(id)\"")
                            && $0.hasSuffix(" \(bytes)")
                    }
                }
                return lines.count == 3 && told("one", own, half) && told("two", shared, quarter)
                    && told("two", idle, 0)
            }
            try expectSuccess(cluster.martlet("rm", "-f", "one"))
            try eventually("who waited has what became free") { try granted("late") == [FakeGPUs.uuid(index)] }
            held = try granted("late") + granted("two")
            #expect(Set(held).count == 3)
            try eventually("and can use it") { try nodes("late") == ["nvidia\(gpus.minor(index))"] }
        }
    }
}
