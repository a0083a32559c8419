import JSON
import OCISpec
import Testing

/// config.json, read and written.
@Suite struct ContainerSpecTests {
    private let full = """
        {"ociVersion":"1.2.0","process":{"terminal":true,"consoleSize":{"height":30,"width":100},
        "user":{"uid":1,"gid":2,"umask":18,"additionalGids":[3,4]},"args":["sh"],"env":["A=b"],"cwd":"/",
        "capabilities":{"bounding":["CAP_KILL"],"effective":["CAP_KILL"],"inheritable":["CAP_KILL"],
        "permitted":["CAP_KILL"],"ambient":["CAP_KILL"]},
        "rlimits":[{"type":"RLIMIT_NOFILE","hard":18446744073709551615,"soft":1024}],"noNewPrivileges":true,
        "oomScoreAdj":-5,"scheduler":{"policy":"SCHED_BATCH","nice":5,"flags":["SCHED_FLAG_RESET_ON_FORK"]},
        "ioPriority":{"class":"IOPRIO_CLASS_BE","priority":7},"execCPUAffinity":{"initial":"0","final":"0-1"}},
        "root":{"path":"rootfs","readonly":true},"hostname":"box","domainname":"example",
        "mounts":[{"destination":"/a","type":"bind","source":"/b","options":["rbind","ro"],
        "uidMappings":[{"containerID":0,"hostID":1,"size":2}]}],
        "hooks":{"createRuntime":[{"path":"/x","args":["x"],"env":["C=d"],"timeout":3}]},
        "annotations":{"k":"v"},
        "linux":{"uidMappings":[{"containerID":0,"hostID":1000,"size":10}],"sysctl":{"net.core.somaxconn":"256"},
        "resources":{"devices":[{"allow":false,"access":"rwm"},{"allow":true,"type":"c","major":1,"minor":3}],
        "memory":{"limit":1048576,"swap":-1},"cpu":{"shares":512,"quota":-1,"cpus":"0-1"},"pids":{"limit":7},
        "rdma":{"mlx5_0":{"hcaHandles":3,"hcaObjects":4294967295}},
        "unified":{"memory.high":"max"}},"cgroupsPath":"/a","namespaces":[{"type":"pid"},
        {"type":"network","path":"/run/n"}],"devices":[{"path":"/dev/x","type":"c","major":1,"minor":2,"fileMode":438}],
        "seccomp":{"defaultAction":"SCMP_ACT_ERRNO","flags":[],"syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW",
        "args":[{"index":0,"value":18446744073709551615,"op":"SCMP_CMP_EQ"}]}]},"rootfsPropagation":"rslave",
        "maskedPaths":["/m"],"readonlyPaths":["/r"],"personality":{"domain":"LINUX32"},
        "netDevices":{"eth0":{"name":"net0"},"eth1":{}},"memoryPolicy":{"mode":"MPOL_BIND","nodes":"0","flags":["X"]},
        "intelRdt":{"closID":"a","l3CacheSchema":"L3:0=f","memBwSchema":"MB:0=20","schemata":["L2:0=f"],
        "enableMonitoring":true},
        "timeOffsets":{"boottime":{"secs":5,"nanosecs":6}}}}
        """

    @Test func `a whole configuration survives reading and writing`() throws {
        let spec = try ContainerSpec(parsing: Array(full.utf8))
        #expect(spec.process?.rlimits.first?.hard == .max)
        #expect(spec.process?.scheduler?.policy == "SCHED_BATCH")
        #expect(spec.linux?.seccomp?.flags == [])
        #expect(spec.linux?.seccomp?.syscalls[0].args[0].value == .max)
        #expect(spec.linux?.resources?.memory?.swap == -1)
        #expect(spec.linux?.resources?.devices[1].minor == 3)
        #expect(spec.linux?.namespace(.network)?.path == "/run/n")
        #expect(spec.linux?.namespace(.ipc) == nil)
        #expect(try ContainerSpec(parsing: spec.encoded()) == spec)
        let source = try JSONValue.parse(full)
        #expect(spec.json.serialized(sortedKeys: true) == source.serialized(sortedKeys: true))
    }

    @Test func `members that are not known are passed over`() throws {
        let spec = try ContainerSpec(parsing: Array(#"{"ociVersion":"1.0.2","later":{"x":1},"vm":{}}"#.utf8))
        #expect(spec.ociVersion == "1.0.2")
        #expect(spec.process == nil && spec.linux == nil)
    }

    @Test func `members of intelRdt that the specification has no more are passed over`() throws {
        let text = #"{"ociVersion":"1.1.0","linux":{"intelRdt":{"enableCMT":true,"enableMBM":true,"closID":"a"}}}"#
        let spec = try ContainerSpec(parsing: Array(text.utf8))
        var expected = IntelRdtSpec()
        expected.closID = "a"
        #expect(spec.linux?.intelRdt == expected)
    }

    @Test(arguments: [
        (#"{}"#, "$.ociVersion"),
        (#"{"ociVersion":1}"#, "$.ociVersion"),
        (#"{"ociVersion":"1.0.0","process":{"args":["a",2],"cwd":"/"}}"#, "$.process.args[1]"),
        (#"{"ociVersion":"1.0.0","process":{"args":[],"cwd":"/","user":{"uid":-1}}}"#, "$.process.user.uid"),
        (#"{"ociVersion":"1.0.0","process":{"args":[],"cwd":"/","user":{"uid":4294967295}}}"#, "$.process.user.uid"),
        (#"{"ociVersion":"1.0.0","process":{"args":[],"cwd":"/","user":{"uid":4294967296}}}"#, "$.process.user.uid"),
        (
            #"{"ociVersion":"1.0.0","process":{"args":[],"cwd":"/","user":{"additionalGids":["1"]}}}"#,
            "$.process.user.additionalGids[0]"
        ),
        (#"{"ociVersion":"1.0.0","mounts":[{"source":"x"}]}"#, "$.mounts[0].destination"),
        (#"{"ociVersion":"1.0.0","hooks":{"poststop":[{"path":"x"}]}}"#, "$.hooks.poststop[0].path"),
        (#"{"ociVersion":"1.0.0","hooks":{"poststop":[{"path":"/x","timeout":0}]}}"#, "$.hooks.poststop[0].timeout"),
        (#"{"ociVersion":"1.0.0","linux":{"namespaces":[{"type":"nosuch"}]}}"#, "$.linux.namespaces[0].type"),
        (
            #"{"ociVersion":"1.0.0","linux":{"timeOffsets":{"boottime":{"nanosecs":1000000000}}}}"#,
            "$.linux.timeOffsets.boottime.nanosecs"
        ),
        (#"{"ociVersion":"1.0.0","root":{"path":"a\u0000b"}}"#, "$.root.path"),
    ])
    func `errors name the place`(text: String, path: String) throws {
        let error = try #require(throws: JSONError.self) { try ContainerSpec(parsing: Array(text.utf8)) }
        #expect(error.path == path)
    }

    @Test func `the state that hooks read`() throws {
        let state = RuntimeState(
            ociVersion: "1.2.0", id: "a", status: .created, pid: 7, bundle: "/b", annotations: ["k": "v"])
        #expect(try RuntimeState(parsing: state.encoded()) == state)
        #expect(state.json["status"] == "created")
    }

    @Test func `a named pipe has no numbers`() throws {
        let text = #"{"path":"/dev/p","type":"p","major":-5,"minor":99999999999}"#
        #expect(try DeviceSpec(parsing: Array(text.utf8)).major == 0)
    }
}
