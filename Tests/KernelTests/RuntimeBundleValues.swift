import Testing

/// Values of one field, and what comes of a bundle with one of them.
struct BundleValue: CustomTestStringConvertible, Sendable {
    enum Verdict: Sendable { case accepted, refused }

    let place: String
    /// JSON texts.
    let values: [String]
    let ours: Verdict
    /// nil: it depends on the host's control groups, or on what else runc reads.
    let runc: Verdict?
    /// What the error has to contain.
    let name: String

    var testDescription: String { "\(place) = \(values.map { $0.prefix(40) }.joined(separator: ", "))" }

    private init(
        _ place: String, _ values: [String], _ ours: Verdict, _ runc: Verdict?, name: String? = nil
    ) {
        self.place = place
        self.values = values
        self.ours = ours
        self.runc = runc
        self.name = name ?? BundleBench.display(place)
    }

    static let all = refusedByBoth + refusedByUs + acceptedByBoth + acceptedByUs + limits

    private static func text(_ count: Int, before: String = "") -> String {
        "\"\(before)\(String(repeating: "x", count: count))\""
    }

    private static let refusedByBoth = [
        BundleValue("root", ["null"], .refused, .refused),
        BundleValue(
            "root.path", [#""""#, #""/""#, #""/etc/passwd""#, #""nowhere""#, #""rootfs/bin/sh""#], .refused, .refused),
        BundleValue("process", ["null"], .refused, .refused),
        BundleValue("process.args", ["null", "[]", #"[""]"#], .refused, .refused),
        BundleValue("process.cwd", [#""""#, #""tmp""#, #""/bin/busybox""#], .refused, .refused),
        BundleValue("process.env.0", [#""""#, #""=x""#, #""X""#, #""A=\u0000""#], .refused, .refused),
        BundleValue("process.user.uid", ["-1", "4294967295", "4294967296"], .refused, .refused),
        BundleValue("process.user.gid", ["-1", "4294967295", "4294967296"], .refused, .refused),
        BundleValue("process.user.additionalGids", ["[4294967295]", "[1,-1]"], .refused, .refused),
        BundleValue("process.oomScoreAdj", ["-1001", "1001", "2147483648"], .refused, .refused),
        BundleValue(
            "process.rlimits.0", [#"{"type":"RLIMIT_CORE","hard":1,"soft":2}"#], .refused, .refused, name: "RLIMIT_CORE"
        ),
        BundleValue(
            "process.rlimits.0", [#"{"type":"CORE","hard":1,"soft":1}"#, #"{"type":"","hard":1,"soft":1}"#], .refused,
            .refused, name: "RLIMIT_"),
        BundleValue("process.terminal", ["true"], .refused, .refused),
        BundleValue(
            "mounts.9",
            [
                #"{"destination":""}"#, #"{"destination":"/","type":"tmpfs"}"#,
                #"{"destination":"/x","type":"nosuchfs"}"#,
                #"{"destination":"/x","type":"bind","source":"/nowhere"}"#,
                #"{"destination":"/x","type":"bind","source":""}"#, #"{"destination":"/proc","type":"tmpfs"}"#,
                #"{"destination":"/bin/busybox","type":"tmpfs"}"#,
                #"{"destination":"/x","type":"tmpfs","options":["mode=9"]}"#,
                #"{"destination":"/x","type":"tmpfs","options":["size=-1"]}"#,
                #"{"destination":\#(text(300, before: "/")),"type":"tmpfs"}"#,
                #"{"destination":"/x","type":"tmpfs","options":[\#(text(5000))]}"#,
            ], .refused, .refused, name: "mounts[6]"),
        BundleValue("linux.namespaces", ["null", "[]", #"[{"type":"pid"}]"#], .refused, .refused),
        BundleValue(
            "linux.namespaces.5", [#"{"type":"pid"}"#, #"{"type":"mount"}"#, #"{"type":"nosuch"}"#, #"{"type":""}"#],
            .refused, .refused),
        BundleValue(
            "linux.namespaces.5",
            [#"{"type":"cgroup","path":"/etc/passwd"}"#, #"{"type":"cgroup","path":"/proc/self/ns/net"}"#], .refused,
            .refused, name: "cgroup namespace"),
        BundleValue("linux.namespaces.5", [#"{"type":"cgroup","path":"nowhere"}"#], .refused, .refused),
        BundleValue(
            "linux.devices.0",
            [
                #"{"path":"/dev/x","type":"c","major":-1,"minor":0}"#,
                #"{"path":"/dev/pts/x","type":"c","major":1,"minor":3}"#,
                #"{"path":"/proc/x","type":"c","major":1,"minor":3}"#,
                #"{"path":\#(text(300, before: "/dev/")),"type":"c","major":1,"minor":3}"#,
            ], .refused, .refused, name: "linux.devices"),
        // runc refuses what no group is left for; on cgroup v2 it takes the root itself.
        BundleValue("linux.cgroupsPath", [#""/""#, #""..""#], .refused, nil),
        BundleValue(
            "linux.sysctl",
            [
                #"{"net.nosuch":"1"}"#, #"{"":"1"}"#, #"{"net":"1"}"#, #"{"vm.swappiness":"1"}"#,
                #"{"net/ipv4/../../vm/swappiness":"1"}"#, #"{"kernel.msgmax":"-1"}"#,
                #"{"net.ipv4.ip_forward":\#(text(5000))}"#,
            ], .refused, .refused),
        BundleValue("linux.rootfsPropagation", [#""nosuch""#, #""ro""#], .refused, .refused),
        BundleValue("linux.resources.devices.0", [#"{"allow":true,"type":"x","access":"r"}"#], .refused, .refused),
        BundleValue(
            "linux.seccomp",
            [
                #"{"defaultAction":"X"}"#, #"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["X"]}"#,
                #"{"defaultAction":"SCMP_ACT_ALLOW","flags":["X"]}"#,
                #"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"SCMP_ACT_ERRNO","args":[{"index":6,"value":1,"op":"SCMP_CMP_EQ"}]}]}"#,
                #"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"SCMP_ACT_ERRNO","args":[{"index":0,"value":1,"op":"X"}]}]}"#,
            ], .refused, .refused),
        BundleValue(
            "hooks.prestart.0",
            [#"{"path":"true"}"#, #"{"path":"/bin/true","timeout":0}"#, #"{"path":"/bin/true","timeout":-1}"#],
            .refused,
            .refused),
        BundleValue("hooks.prestart.0", [#"{"path":"/nowhere"}"#], .refused, .refused, name: "/nowhere"),
    ]

    /// Where runc would do something else than was asked, or something by chance.
    private static let refusedByUs = [
        BundleValue("ociVersion", [#""""#, #""1""#, #""0.9.0""#, #""1.0.2.3""#, #""one""#], .refused, .accepted),
        BundleValue("domainname", [text(65)], .refused, .accepted),
        BundleValue("process.user.umask", ["512", "262143"], .refused, .accepted),
        BundleValue(
            "process.rlimits",
            [#"[{"type":"RLIMIT_CORE","hard":0,"soft":0},{"type":"RLIMIT_CORE","hard":0,"soft":0}]"#], .refused,
            .accepted),
        BundleValue(
            "mounts.9",
            [
                #"{"destination":"/proc/sys","type":"tmpfs"}"#, #"{"destination":"/x","type":"tmpfs","options":[""]}"#,
                #"{"destination":"/x","type":"tmpfs","options":["size=1,mode=0"]}"#,
            ], .refused, .accepted, name: "mounts[6]"),
        // Older kernels refuse it, newer ones pass over it.
        BundleValue(
            "mounts.9", [#"{"destination":"/x","type":"tmpfs","options":["="]}"#], .refused, nil, name: "mounts[6]"),
        BundleValue(
            "linux.devices.0",
            [
                #"{"path":"/dev/x","type":"c","major":4096,"minor":0}"#,
                #"{"path":"/dev/x","type":"c","major":0,"minor":1048576}"#,
                #"{"path":"","type":"c","major":1,"minor":3}"#,
                #"{"path":"/","type":"c","major":1,"minor":3}"#, #"{"path":"/dev","type":"c","major":1,"minor":3}"#,
                #"{"path":"/dev/x","type":"c","major":1,"minor":3,"fileMode":4294967295}"#,
            ], .refused, .accepted, name: "linux.devices"),
        BundleValue("linux.maskedPaths.9", [#""x""#, #""""#], .refused, .accepted, name: "linux.maskedPaths[5]"),
        BundleValue("linux.readonlyPaths.9", [#""x""#, #""""#], .refused, .accepted, name: "linux.readonlyPaths[3]"),
        BundleValue("linux.personality.domain", [#""BSD""#], .refused, .accepted),
        BundleValue(
            "linux.resources.devices.0",
            [#"{"allow":true,"type":"c","access":"q"}"#, #"{"allow":true,"type":"c","access":"rrwm"}"#], .refused,
            .accepted),
    ]

    private static let acceptedByBoth = [
        BundleValue("ociVersion", [#""1.0.0""#, #""1.0.2-rc1""#], .accepted, .accepted),
        BundleValue("hostname", [#""""#, text(64), #""a b""#, #""-x""#], .accepted, .accepted),
        BundleValue("root.path", [#""rootfs/../rootfs""#, #""./rootfs/""#], .accepted, .accepted),
        BundleValue("process.env", ["[]", "null", #"["PATH=/bin","PATH=/x"]"#, #"["X="]"#], .accepted, .accepted),
        BundleValue("process.cwd", [#""/nowhere/new""#, #""/../..""#], .accepted, .accepted),
        BundleValue("process.user.additionalGids", ["[1,1,1]", "null", "[]"], .accepted, .accepted),
        BundleValue("process.user.umask", ["0", "511"], .accepted, .accepted),
        BundleValue("process.capabilities", ["null", "{}"], .accepted, .accepted),
        BundleValue(
            "process.capabilities.bounding", [#"["CAP_KILL","CAP_NOSUCH"]"#, #"["CAP_KILL","CAP_KILL"]"#], .accepted,
            .accepted),
        BundleValue("process.consoleSize", [#"{"height":0,"width":0}"#], .accepted, .accepted),
        BundleValue(
            "mounts.9",
            [
                #"{"destination":"/../../x","type":"tmpfs"}"#, #"{"destination":"/x\n","type":"tmpfs"}"#,
                #"{"destination":"/x","type":"tmpfs","options":["ro","rw"]}"#,
            ], .accepted, .accepted),
        BundleValue("linux.namespaces.5", [#"{"type":"cgroup"}"#], .accepted, .accepted),
        BundleValue(
            "linux.devices.0",
            [
                #"{"path":"/dev/x","type":"c","major":4095,"minor":1048575}"#, #"{"path":"/dev/x","type":"p"}"#,
                #"{"path":"/dev/x","type":"c","major":1,"minor":3,"fileMode":33188}"#,
            ], .accepted, .accepted),
        BundleValue("linux.sysctl", [#"{"net.ipv4.ip_forward":"1"}"#, "{}", "null"], .accepted, .accepted),
        BundleValue(
            "linux.rootfsPropagation", [#""""#, #""private""#, #""rprivate""#, #""rslave""#], .accepted, .accepted),
        BundleValue("linux.maskedPaths", [#"["/nowhere"]"#, #"["/proc/../etc"]"#, "null"], .accepted, .accepted),
        BundleValue("linux.readonlyPaths", [#"["/nowhere"]"#, #"["/etc"]"#, "null"], .accepted, .accepted),
        BundleValue("annotations", [#"{"":"x"}"#, #"{"a\nb":""}"#, "null"], .accepted, .accepted),
        BundleValue("hooks", ["null", "{}", #"{"prestart":[],"later":[]}"#], .accepted, .accepted),
        BundleValue("windows", [#"{"layerFolders":["x"]}"#], .accepted, .accepted),
        BundleValue(
            "linux.seccomp",
            [
                "null",
                #"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["nosuchcall"],"action":"SCMP_ACT_ERRNO"}]}"#,
            ],
            .accepted, .accepted),
    ]

    /// Where runc's own shape stands in the way, and the kernel has nothing against it.
    private static let acceptedByUs = [
        BundleValue("process.user.uid", ["4294967294"], .accepted, .refused),
        BundleValue("process.user.additionalGids", ["[4294967294]"], .accepted, .refused),
        BundleValue("linux.namespaces.5", [#"{"type":"time"}"#], .accepted, .refused),
        BundleValue("linux.resources.devices.0", [#"{"allow":true,"type":"c","major":-1}"#], .accepted, .refused),
    ]

    private static let limits = [
        BundleValue("linux.resources.memory.limit", ["-2", "-9223372036854775808"], .refused, nil),
        BundleValue("linux.resources.memory.reservation", ["-2"], .refused, nil),
        BundleValue("linux.resources.memory.swap", ["-2"], .refused, nil),
        BundleValue("linux.resources.memory.kernel", ["-2"], .refused, nil),
        BundleValue("linux.resources.memory.kernelTCP", ["-2"], .refused, nil),
        BundleValue(
            "linux.resources.memory", [#"{"limit":33554432,"swap":16777216}"#], .refused, nil, name: "memory.swap"),
        BundleValue("linux.resources.memory.limit", ["-1", "0", "9223372036854775807"], .accepted, nil),
        BundleValue("linux.resources.memory.swappiness", ["201"], .refused, nil, name: "swappiness"),
        BundleValue("linux.resources.cpu.quota", ["1"], .refused, nil, name: "cpu"),
        BundleValue("linux.resources.cpu.period", ["999", "1000001"], .refused, nil, name: "cpu"),
        BundleValue(
            "linux.resources.cpu.cpus", [#""x""#, #""-1""#, #""1-0""#, #""0-99999""#, #""0\n""#], .refused, nil,
            name: "cpu"),
        BundleValue("linux.resources.cpu.mems", [#""x""#, #""999""#], .refused, nil, name: "mems"),
        BundleValue("linux.resources.cpu.idle", ["-1", "2"], .refused, nil, name: "idle"),
        BundleValue("linux.resources.pids.limit", ["4194305"], .refused, nil, name: "pids"),
        BundleValue("linux.resources.pids.limit", ["-1", "0", "4194304"], .accepted, nil),
        BundleValue(
            "linux.resources.devices.0",
            [
                #"{"allow":true,"type":"c","major":-2,"access":"r"}"#,
                #"{"allow":true,"type":"c","major":1099511627776,"access":"r"}"#,
            ], .refused, nil, name: "linux.resources.devices[0].major"),
        BundleValue(
            "linux.resources.devices.0", [#"{"allow":true,"type":"c","minor":-2,"access":"r"}"#], .refused, nil,
            name: "linux.resources.devices[0].minor"),
        BundleValue(
            "linux.resources.hugepageLimits.0",
            [#"{"pageSize":"3MB","limit":0}"#, #"{"pageSize":"","limit":0}"#, #"{"pageSize":"../x","limit":1}"#],
            .refused, nil, name: "huge"),
        BundleValue(
            "linux.resources.unified", [#"{"../x":"1"}"#, #"{"cgroup.procs":"0"}"#, #"{"":"1"}"#], .refused, nil,
            name: "unified"),
    ]
}
