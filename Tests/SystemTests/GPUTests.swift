import Glibc
import Kernel
import Testing

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
    }
}
