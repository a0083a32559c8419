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
    }
}
