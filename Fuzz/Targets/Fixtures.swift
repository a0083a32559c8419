/// What the documents' targets begin with: every field once.
enum Fixtures {
    static let process = #"""
        {"terminal":true,"consoleSize":{"height":30,"width":100},"user":{"uid":1,"gid":2,"umask":18,
        "additionalGids":[3]},"args":["sh","-c"],"env":["A=b"],"cwd":"/","capabilities":{"bounding":["CAP_KILL"],
        "effective":["CAP_KILL"],"inheritable":[],"permitted":["CAP_KILL"],"ambient":[]},"rlimits":[
        {"type":"RLIMIT_NOFILE","hard":2048,"soft":1024}],"noNewPrivileges":true,"oomScoreAdj":-5,
        "apparmorProfile":"unconfined","selinuxLabel":"","scheduler":{"policy":"SCHED_FIFO","priority":5,"nice":0,
        "flags":["SCHED_FLAG_RESET_ON_FORK"]},"ioPriority":{"class":"IOPRIO_CLASS_BE","priority":4},
        "execCPUAffinity":{"initial":"0-3,7","final":"1"}}
        """#

    static let resources = #"""
        {"devices":[{"allow":false,"access":"rwm"},{"allow":true,"type":"c","major":1,"minor":3,"access":"rw"}],
        "memory":{"limit":1048576,"reservation":-1,"swap":2097152,"kernel":-1,"kernelTCP":0,"swappiness":60,
        "disableOOMKiller":false,"useHierarchy":true,"checkBeforeUpdate":true},"cpu":{"shares":1024,"quota":-1,
        "burst":0,"period":100000,"realtimeRuntime":0,"realtimePeriod":1000000,"cpus":"0-1","mems":"0","idle":0},
        "pids":{"limit":64},"blockIO":{"weight":100,"leafWeight":10,"weightDevice":[{"major":8,"minor":0,
        "weight":500}],"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":600}]},"hugepageLimits":[
        {"pageSize":"2MB","limit":0}],"network":{"classID":1,"priorities":[{"name":"eth0","priority":2}]},
        "rdma":{"mlx5_0":{"hcaHandles":3,"hcaObjects":4}},"unified":{"memory.high":"max"}}
        """#

    static let seccomp = #"""
        {"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":38,"architectures":["SCMP_ARCH_X86_64","SCMP_ARCH_X86",
        "SCMP_ARCH_X32"],"flags":["SECCOMP_FILTER_FLAG_LOG"],"syscalls":[{"names":["read","write","nosuch"],
        "action":"SCMP_ACT_ALLOW"},{"names":["personality"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":8,
        "op":"SCMP_CMP_EQ"},{"index":1,"value":255,"valueTwo":8,"op":"SCMP_CMP_MASKED_EQ"}]},{"names":["kill"],
        "action":"SCMP_ACT_TRACE","errnoRet":7}]}
        """#

    private static let linux = #"""
        "linux":{"namespaces":[{"type":"mount"},{"type":"pid"},{"type":"network"},{"type":"ipc"},{"type":"uts"},
        {"type":"user"},{"type":"cgroup"},{"type":"time"}],"uidMappings":[{"containerID":0,"hostID":1000,"size":10}],
        "gidMappings":[{"containerID":0,"hostID":1000,"size":10}],"timeOffsets":{"monotonic":{"secs":1,"nanosecs":2}},
        "devices":[{"path":"/dev/x","type":"c","major":1,"minor":5,"fileMode":438,"uid":0,"gid":0}],
        "cgroupsPath":"/a/b","sysctl":{"net.ipv4.ip_forward":"1","kernel.msgmax":"8192"},"rootfsPropagation":"rslave",
        "maskedPaths":["/proc/kcore"],"readonlyPaths":["/proc/sys"],"mountLabel":"","intelRdt":{"closID":"c",
        "l3CacheSchema":"L3:0=f","memBwSchema":"MB:0=20","schemata":["L2:0=3"]},"memoryPolicy":{"mode":
        "MPOL_INTERLEAVE","nodes":"0-1","flags":["MPOL_F_STATIC_NODES"]},"personality":{"domain":"LINUX"},
        "netDevices":{"eth1":{"name":"net%d"}},"seccomp":
        """#

    static let configurations = [
        #"""
        {"ociVersion":"1.2.0","hostname":"box","domainname":"example","annotations":{"k":"v"},"root":{"path":"rootfs",
        "readonly":true},"mounts":[{"destination":"/proc","type":"proc","source":"proc","options":["nosuid","noatime"]},
        {"destination":"/a/../b","type":"bind","source":"/b","options":["rbind","rro","rslave","idmap"],"uidMappings":[
        {"containerID":0,"hostID":1,"size":2}],"gidMappings":[{"containerID":0,"hostID":1,"size":2}]},
        {"destination":"/t","type":"tmpfs","source":"tmpfs","options":["tmpcopyup","mode=755","size=64k"]}],
        "hooks":{"createRuntime":[{"path":"/h","args":["h"],"env":["A=b"],"timeout":3}]},"process":
        """# + process + "," + linux + seccomp + #","resources":"# + resources + "}}",
        #"""
        {"ociVersion":"1.0.2-dev","root":{"path":"r"},"process":{"args":["a"],"cwd":"/"},"linux":{"namespaces":[
        {"type":"mount"}]}}
        """#,
    ]

    static let record =
        #"""
        {"version":1,"ociVersion":"1.2.0","id":"c1","pid":42,"startTime":99,"bundle":"/b","rootfs":"/b/r",
        "created":"2026-01-02T03:04:05.5Z","cgroup":{"path":"/martlet/c1","hierarchies":[{"mountPoint":
        "/sys/fs/cgroup/memory","version":1,"controllers":["memory"]},{"mountPoint":"/sys/fs/cgroup","version":2,
        "controllers":["pids"],"root":"/x","base":"/y"}],"scope":{"slice":"a-b.slice","unit":"m-c1.scope"}},
        "namespaces":["mount","pid"],"ownsPids":true,"seccompFlags":4,"annotations":{"k":"v"},"poststop":[
        {"path":"/h"}],"seccompListener":{"path":"/s","metadata":"m"},"personality":{"domain":"LINUX32"},
        "memoryPolicy":{"mode":"MPOL_BIND","nodes":"0"},"resourceControl":{"root":"/sys/fs/resctrl","group":"g",
        "own":true},"process":
        """# + process + "}"
}
