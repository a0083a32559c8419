import Glibc
import Kernel
import Testing

extension SystemSuite {
    @Suite("Devices by the names of their CDI specifications", .serialized) struct NamedDevices {
        @Test("A container gets what the node's specifications say of a device, with `martlet run` and `docker run`")
        func given() throws {
            try withCluster { cluster in
                let folder = cluster.deviceDirectory
                try File.makeDirectories(folder, mode: 0o755)
                try File.replace("\(folder)/words", with: Array("mounted\n".utf8), mode: 0o644)
                // A hook runs on the node, as root: nothing of the container may lead it.
                let hook = "#!/bin/sh\nenv >'\(folder)/hook.new'; mv '\(folder)/hook.new' '\(folder)/hook'\n"
                try File.replace("\(folder)/hook.sh", with: Array(hook.utf8), mode: 0o755)
                try File.replace(
                    "\(folder)/vendor.yaml",
                    with: Array(
                        """
                        cdiVersion: 0.5.0
                        kind: vendor.com/class
                        containerEdits:
                          env: [VENDOR=all]
                          hooks: [{hookName: createContainer, path: \(folder)/hook.sh}]
                        devices:
                        - name: 0
                          containerEdits:
                            env: [DEVICE=zero]
                            deviceNodes: [{path: /dev/mine, hostPath: /dev/zero, permissions: r}]
                            mounts: [{hostPath: \(folder)/words, containerPath: /words, options: [ro, bind]}]
                        """.utf8), mode: 0o644)
                let script = """
                    echo $VENDOR $DEVICE; head -c 5 /dev/mine | wc -c
                    cat /words; (echo x >/words) 2>/dev/null || echo refused
                    """
                let wanted = "all zero\n5\nmounted\nrefused"
                let run = ["run", "--rm", "-e", "CANARY=1", "--device", "vendor.com/class=0", "busybox", "sh", "-c"]
                #expect(try cluster.run(run + [script]).text == wanted)
                let environment = try File.text("\(folder)/hook")
                #expect(!environment.contains("CANARY"), "\(environment)")
                // Clients before 25 take paths only.
                if let client = DockerClient.all.last, client.major >= 25 {
                    let docker = try Program(
                        client.path, ["-H", "unix://\(cluster.runDirectory)/martlet.sock"] + run + [script],
                        environment: ["PATH=/usr/local/bin:/usr/bin:/bin", "HOME=\(cluster.folder)"],
                        timeoutMilliseconds: 60_000
                    ).run()
                    #expect(String(decoding: docker.output, as: UTF8.self) == wanted + "\n", "\(docker.errorText)")
                }
                // The file goes, and the device with it.
                let none = try cluster.martlet("run", "--rm", "--device", "vendor.com/class=1", "busybox", "true")
                #expect(none.code != 0)
                #expect(
                    none.errors.contains(
                        "this node has no CDI device vendor.com/class=1, of vendor.com/class there are: 0"), "\(none)")
                try File.removeFile("\(folder)/vendor.yaml")
                let gone = try cluster.martlet("run", "--rm", "--device", "vendor.com/class=0", "busybox", "true")
                #expect(
                    gone.code != 0 && gone.errors.contains("this node has no CDI devices vendor.com/class"), "\(gone)")
            }
        }
    }
}
