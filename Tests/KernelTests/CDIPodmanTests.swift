import CDI
import CDISpec
import Glibc
import JSON
import Kernel
import OCISpec
import Testing

/// podman 4.3, which knows CDI up to 0.5.0, and we edit the same configuration by the same files. What podman would give
/// its OCI runtime is taken by a program in the runtime's place, so that no container runs.
///
/// Two things came later and are left out of the comparison: a variable took a place behind one of its name instead of its
/// own, and a node's mode was not looked up.
private struct PodmanComparison {
    struct Case {
        /// What stands in the table below it.
        let about: String
        /// Files by name; a space at the beginning of lines counts in YAML only.
        let files: [String: String]
        let names: [String]
        var options: [String] = []
    }

    let folder: String

    init() throws {
        var template = Array("/tmp/martlet-podman-XXXXXX".utf8CString)
        folder = String(cString: try #require(mkdtemp(&template)))
    }

    func remove() { _ = try? Tree.remove(folder) }

    /// Lets podman make the configuration of each case, with its devices and without.
    ///
    /// - Returns: the text of each configuration; nil where podman refused.
    func configurations(_ cases: [Case]) throws -> [(with: String?, without: String?)] {
        var script = """
            set -eu
            cd \(folder)
            mkdir rootfs
            cat >runtime <<'X'
            #!/bin/bash
            while [ $# -gt 0 ]; do
                [ "$1" != --bundle ] || cp "$2/config.json" \(folder)/record
                shift
            done
            exit 1
            X
            chmod +x runtime
            # Directories and locks of this machine's own podman are not touched.
            mount -t tmpfs tmpfs /run
            mount -t tmpfs tmpfs /dev/shm
            mkfifo pipe
            box() {
                to=$1
                shift
                podman --root $PWD/graph --runroot $PWD/run --tmpdir $PWD/tmp --storage-driver vfs --cgroup-manager cgroupfs \\
                    --events-backend none --runtime "$PWD/runtime" run --rm --network none --name box --hostname box \\
                    "$@" --rootfs $PWD/rootfs sh >>"$to.log" 2>&1 </dev/null || true
                [ ! -e record ] || mv record "$to"
            }

            """
        for (index, item) in cases.enumerated() {
            try File.makeDirectories("\(folder)/\(index)")
            for (name, text) in item.files {
                try File.replace("\(folder)/\(index)/\(name)", with: Array(text.utf8), mode: 0o644)
            }
            let options = item.options.joined(separator: " ")
            let devices = item.names.map { "--device \($0)" }.joined(separator: " ")
            script += "rm -rf /run/cdi; cp -r \(index) /run/cdi\n"
            script += "box $PWD/\(index)-with \(options) \(devices)\nbox $PWD/\(index)-without \(options)\n"
        }
        try File.replace("\(folder)/script", with: Array(script.utf8))
        let result = try Program(
            "/usr/bin/unshare", ["--mount", "--propagation", "private", "bash", "\(folder)/script"],
            environment: ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=\(folder)"],
            timeoutMilliseconds: 180_000
        ).run()
        try #require(result.status == .exited(0), "\(String(decoding: result.errors, as: UTF8.self))")
        return cases.indices.map { index in
            (try? File.text("\(folder)/\(index)-with"), try? File.text("\(folder)/\(index)-without"))
        }
    }

    /// A configuration without what is each container's own, and without what came after podman's CDI.
    static func comparable(_ text: String) throws -> OCISpec.ContainerSpec {
        let named = text.replacing(/[0-9a-f]{64}/, with: "ID")
        return comparable(try OCISpec.ContainerSpec(parsing: Array(named.utf8)))
    }

    static func comparable(_ spec: OCISpec.ContainerSpec) -> OCISpec.ContainerSpec {
        var spec = spec
        var variables: [String: String] = [:]
        for variable in spec.process?.env ?? [] {
            variables[String(variable.prefix { $0 != "=" })] = variable
        }
        spec.process?.env = variables.values.sorted()
        // Mounts as deep as each other, and their times, are podman's in any order and from run to run.
        spec.mounts.sort { $0.destination < $1.destination }
        spec.annotations = [:]
        return spec
    }

    /// A configuration of ours without the modes of nodes that podman's does not say.
    static func comparable(
        _ spec: OCISpec.ContainerSpec, with theirs: OCISpec.ContainerSpec
    ) -> OCISpec.ContainerSpec {
        var spec = comparable(spec)
        let modeless = Set((theirs.linux?.devices ?? []).filter { $0.fileMode == nil }.map(\.path))
        for (index, device) in (spec.linux?.devices ?? []).enumerated() where modeless.contains(device.path) {
            spec.linux?.devices[index].fileMode = nil
        }
        return spec
    }

    /// How deep each mount is, in the order in which they are made.
    static func depths(_ spec: OCISpec.ContainerSpec) -> [Int] {
        spec.mounts.map { mount in
            var names: [Substring] = []
            for name in mount.destination.split(separator: "/") where name != "." {
                if name == ".." { _ = names.popLast() } else { names.append(name) }
            }
            return names.count
        }
    }
}

extension KernelSuite {
    @Suite(
        .serialized,
        .disabled(if: access("/usr/bin/podman", X_OK) != 0, "needs podman: scripts/setup.sh test installs it"))
    struct CDIEditsUnderPodman {
        private static func file(
            _ edits: String, all: String = "", name: String = "a", version: String = "0.5.0",
            kind: String = "vendor.com/class"
        ) -> String {
            """
            {"cdiVersion":"\(version)","kind":"\(kind)","containerEdits":{\(all)},
            "devices":[{"name":"\(name)","containerEdits":{\(edits)}}]}
            """
        }

        private static func one(_ about: String, _ edits: String, all: String = "", options: [String] = [])
            -> PodmanComparison.Case
        {
            PodmanComparison.Case(
                about: about, files: ["a.json": file(edits, all: all)], names: ["vendor.com/class=a"], options: options)
        }

        @Test func `what podman makes of a file is what we make of it`() throws {
            let podman = try PodmanComparison()
            defer { podman.remove() }
            let pipe = "\(podman.folder)/pipe"
            let published = "\(podman.folder)/published"
            try CDIFile.publish(
                try #require(CDIKind("martlet.example/gpu")), writer: "tests",
                devices: [
                    CDIDevice(
                        "g0",
                        edits: CDIEdits(
                            env: ["GPU=0"], deviceNodes: [CDIDeviceNode(path: "/dev/gpu0", hostPath: "/dev/zero")],
                            mounts: [CDIMount(hostPath: "/usr/lib", containerPath: "/lib/x", options: ["ro", "rbind"])])
                    ),
                    CDIDevice("g1", edits: CDIEdits(hooks: [CDIHook(.createContainer, HookSpec(path: "/h"))])),
                ],
                edits: CDIEdits(env: ["DRIVER=1"]), in: published)
            let cases = [
                Self.one(
                    "variables", #""env":["B=2","PATH=/x","C="]"#, all: #""env":["A=1","C=3"]"#, options: ["-e C=4"]),
                Self.one("a node of the host", #""deviceNodes":[{"path":"/dev/x","hostPath":"/dev/null"}]"#),
                Self.one("a node that is there", #""deviceNodes":[{"path":"/dev/full","permissions":"r"}]"#),
                Self.one(
                    "nodes that the host does not have",
                    #"""
                    "deviceNodes":[{"path":"/dev/b","type":"b","major":7,"minor":250,"permissions":"rw","fileMode":432},
                    {"path":"/dev/c","type":"c","major":195},{"path":"/dev/u","type":"u","major":9,"minor":1}]
                    """#),
                Self.one("a pipe", #""deviceNodes":[{"path":"/dev/pipe","hostPath":"\#(pipe)","type":"p"}]"#),
                Self.one(
                    "owners", #""deviceNodes":[{"path":"/dev/null"},{"path":"/dev/zero","uid":0,"gid":7}]"#,
                    options: ["--user 1000:100 -e HOME=/h"]),
                Self.one(
                    "a node in another's place",
                    #""deviceNodes":[{"path":"/dev/y","hostPath":"/dev/null"},{"path":"/dev/y","hostPath":"/dev/zero"}]"#,
                    options: ["--device /dev/null:/dev/y"]),
                Self.one(
                    "mounts by their depth",
                    #"""
                    "mounts":[{"hostPath":"/etc","containerPath":"/a/b/../c/d","options":["ro","bind"]},
                    {"hostPath":"/usr","containerPath":"/z","options":["rbind"]},
                    {"hostPath":"tmpfs","containerPath":"/dev/shm","type":"tmpfs","options":["size=64k"]}]
                    """#),
                Self.one(
                    "hooks",
                    #"""
                    "hooks":[{"hookName":"prestart","path":"/h1"},{"hookName":"createRuntime","path":"/h2","args":["h","x"]},
                    {"hookName":"createContainer","path":"/h3","env":["A=b"]},{"hookName":"startContainer","path":"/h4",
                    "timeout":5},{"hookName":"poststart","path":"/h5"},{"hookName":"poststop","path":"/h6"}]
                    """#),
                PodmanComparison.Case(
                    about: "several devices, one file's twice",
                    files: [
                        "a.json": """
                        {"cdiVersion":"0.4.0","kind":"vendor.com/class","containerEdits":{"hooks":[{"hookName":"poststop",
                        "path":"/all"}]},"devices":[{"name":"a","containerEdits":{"env":["A=1"]}},{"name":"b",
                        "containerEdits":{"env":["A=2"],"deviceNodes":[{"path":"/dev/null"}]}}]}
                        """,
                        "b.json": Self.file(
                            #""env":["A=3"]"#, all: #""env":["D=4"]"#, name: "0:c", kind: "vendor.com/other"),
                    ], names: ["vendor.com/class=b", "vendor.com/other=0:c", "vendor.com/class=a"]),
                PodmanComparison.Case(
                    about: "YAML beside a file that is not whole",
                    files: [
                        "a.yaml": """
                        cdiVersion: 0.3.0
                        kind: vendor.com/class
                        devices:
                        - name: a
                          containerEdits:
                            env: [A=yes]
                            deviceNodes:
                            - {path: /dev/x, type: c, major: 10, minor: 0, fileMode: 0640, uid: 5}
                        """,
                        "b.json": "{",
                    ], names: ["vendor.com/class=a"]),
                PodmanComparison.Case(
                    about: "a file that we wrote",
                    files: ["x.json": try File.text("\(published)/martlet.example-gpu_tests.json")],
                    names: ["martlet.example/gpu=g1", "martlet.example/gpu=g0"]),
            ]
            for (index, (item, made)) in zip(cases, try podman.configurations(cases)).enumerated() {
                let log = (try? File.text("\(podman.folder)/\(index)-with.log")) ?? ""
                let edited = try #require(made.with, "\(item.about): \(log)")
                let theirs = try PodmanComparison.comparable(edited)
                let plain = try #require(made.without, "\(item.about)")
                var ours = try PodmanComparison.comparable(plain)
                #expect(ours != theirs, "\(item.about): podman edits something")
                // From its text again, whose variables are in their order.
                ours = try OCISpec.ContainerSpec(parsing: Array(plain.replacing(/[0-9a-f]{64}/, with: "ID").utf8))
                let edits = try CDIRegistry(["\(podman.folder)/\(index)"]).edits(
                    of: try item.names.map { try #require(CDIName($0)) })
                try edits.apply(to: &ours)
                // Of mounts as deep as each other any may be the first.
                let wanted = PodmanComparison.depths(try OCISpec.ContainerSpec(parsing: Array(edited.utf8)))
                #expect(PodmanComparison.depths(ours) == wanted, "\(item.about): mounts in the order of their depth")
                ours = PodmanComparison.comparable(ours, with: theirs)
                #expect(ours == theirs, "\(item.about)")
                if ours != theirs {
                    print("\(item.about): ours\n\(String(decoding: ours.encoded(), as: UTF8.self))")
                    print("podman's\n\(String(decoding: theirs.encoded(), as: UTF8.self))")
                }
            }
        }

        @Test func `what podman refuses we refuse`() throws {
            let podman = try PodmanComparison()
            defer { podman.remove() }
            let good = Self.file(#""env":["A=b"]"#)
            let cases = [
                PodmanComparison.Case(about: "no device", files: ["a.json": good], names: ["vendor.com/class=b"]),
                PodmanComparison.Case(
                    about: "two files", files: ["a.json": good, "b.json": good], names: ["vendor.com/class=a"]),
                Self.one("no edits", ""), Self.one("a field", #""env":["A=b"],"more":1"#),
                Self.one("a variable", #""env":["A"]"#), Self.one("a hook", #""hooks":[{"hookName":"x","path":"/h"}]"#),
                Self.one("a node", #""deviceNodes":[{"path":"/dev/none-such"}]"#),
                Self.one("rights", #""deviceNodes":[{"path":"/dev/null","permissions":"x"}]"#),
                Self.one("a node's type", #""deviceNodes":[{"path":"/dev/null","type":"b"}]"#),
                Self.one("no node", #""deviceNodes":[{"path":"/etc/passwd"}]"#),
                PodmanComparison.Case(
                    about: "a version", files: ["a.json": Self.file(#""env":["A=b"]"#, version: "0.9.0")],
                    names: ["vendor.com/class=a"]),
            ]
            for (index, (item, made)) in zip(cases, try podman.configurations(cases)).enumerated() {
                #expect(made.with == nil, "\(item.about): podman refuses")
                var spec = OCISpec.ContainerSpec()
                let names = try item.names.map { try #require(CDIName($0)) }
                #expect(throws: CDIError.self, "\(item.about)") {
                    try CDIRegistry(["\(podman.folder)/\(index)"]).edits(of: names).apply(to: &spec)
                }
            }
        }
    }
}
