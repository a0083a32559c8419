import Cgroups
import Glibc
import Kernel
import OCISpec
import Testing

extension KernelSuite {
    /// Where a container's groups are, who owns them, what may go into them, and that they go away.
    @Suite(.serialized) struct CgroupPlace {
        private func groups(_ text: String) -> [String: String] {
            var found: [String: String] = [:]
            for line in text.split(separator: "\n") {
                let fields = line.split(separator: ":", maxSplits: 2, omittingEmptySubsequences: false)
                if fields.count == 3 { found[String(fields[1])] = String(fields[2]) }
            }
            return found
        }

        private func groups(of pid: pid_t) throws -> [String: String] { groups(try File.text("/proc/\(pid)/cgroup")) }

        /// Makes a group below the latest container's in every hierarchy.
        private func makeSubgroup(_ name: String, _ fixture: RuntimeFixture) throws {
            for group in fixture.cgroups where File.exists(group) {
                try File.makeDirectories("\(group)/\(name)", mode: 0o755)
                guard !HostCgroups.isUnified, File.exists("\(group)/\(name)/cpuset.cpus") else { continue }
                for file in ["cpuset.cpus", "cpuset.mems"] {
                    try File.writeControl("\(group)/\(name)/\(file)", "0")
                }
            }
        }

        @Test(arguments: RuntimeFixture.Runtime.allCases)
        func `a relative path starts from the caller's own groups`(_ runtime: RuntimeFixture.Runtime) throws {
            guard try !CgroupLayout.detect().isUnified else { return }
            let fixture = try RuntimeFixture(runtime)
            let name = "martlet-rel-\(fixture.directory.suffix(6))"
            let own = try groups(of: getpid())
            try fixture.start("c1") { $0.linux?.cgroupsPath = name }
            let found = try groups(of: try fixture.state("c1").pid)
            for (hierarchy, path) in own where !hierarchy.isEmpty {
                #expect(found[hierarchy] == (path == "/" ? "/\(name)" : "\(path)/\(name)"), "\(hierarchy)")
            }
            try fixture.must("delete", "--force", "c1")
            for hierarchy in try CgroupLayout.detect().hierarchies {
                let path = own[hierarchy.controllers.map(\.rawValue).joined(separator: ",")] ?? "/"
                #expect(!File.exists("\(hierarchy.mountPoint)\(path == "/" ? "" : path)/\(name)"))
            }
        }

        @Test func `a relative path is found again by every verb`() throws {
            let fixture = try RuntimeFixture()
            let name = "martlet-rel-\(fixture.directory.suffix(6))"
            try fixture.start("c1") {
                $0.linux?.cgroupsPath = name
                $0.linux?.namespaces.append(NamespaceSpec(.cgroup))
                $0.mounts.append(
                    MountSpec(destination: "/sys/fs/cgroup", type: "cgroup", source: "cgroup", options: ["ro"]))
            }
            try fixture.must("update", "--pids-limit", "12", "c1")
            try fixture.must("pause", "c1")
            #expect(try fixture.state("c1").status == .paused)
            try fixture.must("resume", "c1")
            let inside = try fixture.must("exec", "c1", "cat", "/proc/self/cgroup").lines
            #expect(inside.allSatisfy { $0.hasSuffix(":/") }, "\(inside)")
            let limit = HostCgroups.isUnified ? "pids.max" : "pids/pids.max"
            #expect(try fixture.must("exec", "c1", "cat", "/sys/fs/cgroup/\(limit)").text == "12")
        }

        @Test(arguments: RuntimeFixture.Runtime.allCases)
        func `a group with processes or a frozen one takes no container`(_ runtime: RuntimeFixture.Runtime) throws {
            let fixture = try RuntimeFixture(runtime)
            let path = "/martlet-busy-\(fixture.directory.suffix(6))"
            let layout = try CgroupLayout.detect()
            let group = try CgroupManager(layout: layout, path: path)
            try group.create()
            defer { try? group.delete() }
            let process = try ScriptProcess("read end")
            try group.place(process.child.pid)
            let bundle = try fixture.bundle("true") { $0.linux?.cgroupsPath = path }
            let busy = try fixture.call(["create", "--bundle", bundle, "c1"])
            try process.child.signal(SIGKILL)
            _ = try process.wait()
            // Older releases of runc warn only.
            if runtime == .ours {
                #expect(busy.code == 1)
                #expect(busy.stderr.contains("processes already"), "\(busy.stderr)")
            } else {
                #expect(busy.stderr.contains("not empty"), "\(busy.stderr)")
            }
            if busy.code == 0 { try fixture.must("delete", "--force", "c1") }
            guard let freezer = layout.home(of: .freezer), freezer.version == .v1 else { return }
            try group.create()
            try File.writeControl("\(freezer.mountPoint)\(path)/freezer.state", "FROZEN")
            let frozen = try fixture.call(["create", "--bundle", bundle, "c2"])
            try File.writeControl("\(freezer.mountPoint)\(path)/freezer.state", "THAWED")
            #expect(frozen.code == 1)
            #expect(frozen.stderr.contains("frozen"), "\(frozen.stderr)")
        }

        // MARK: exec --cgroup

        @Test(arguments: RuntimeFixture.Runtime.allCases)
        func `exec joins a group below the container's`(_ runtime: RuntimeFixture.Runtime) throws {
            let fixture = try RuntimeFixture(runtime)
            try fixture.start("c1")
            try makeSubgroup("sub", fixture)
            let all = groups(try fixture.must("exec", "--cgroup", "sub", "c1", "cat", "/proc/self/cgroup").stdout)
            let own = groups(try fixture.must("exec", "c1", "cat", "/proc/self/cgroup").stdout)
            for (hierarchy, path) in own where !hierarchy.isEmpty {
                #expect(all[hierarchy] == path + "/sub", "\(hierarchy)")
            }
            guard own["cpu"] != nil, own["memory"] != nil else { return }
            let some = groups(
                try fixture.must(
                    "exec", "--cgroup", "cpu,pids:sub", "--cgroup", "memory:/", "c1", "cat", "/proc/self/cgroup"
                ).stdout)
            for (hierarchy, path) in own where !hierarchy.isEmpty {
                let isMeant = hierarchy == "cpu" || hierarchy == "pids"
                #expect(some[hierarchy] == (isMeant ? path + "/sub" : path), "\(hierarchy)")
            }
        }

        @Test(arguments: RuntimeFixture.Runtime.allCases)
        func `exec leaves the container's groups for no other`(_ runtime: RuntimeFixture.Runtime) throws {
            let fixture = try RuntimeFixture(runtime)
            try fixture.start("c1")
            // Older releases of runc take the last of two places.
            let unclear = runtime == .ours ? [["cpu:/", "cpu:/"]] : []
            for places in [["../"], ["sub/../.."], ["nosuch"], ["cpu:../.."], ["nocontroller:/"]] + unclear {
                let flags = places.flatMap { ["--cgroup", $0] }
                let output = try fixture.call(["exec"] + flags + ["c1", "true"])
                #expect(output.code == 255, "\(places): \(output.stderr)")
                if runtime == .ours { #expect(output.stderr.contains("group"), "\(output.stderr)") }
            }
        }

        // MARK: delete

        @Test(arguments: RuntimeFixture.Runtime.allCases)
        func `delete removes groups that a container made below its own`(_ runtime: RuntimeFixture.Runtime) throws {
            let fixture = try RuntimeFixture(runtime)
            let roots = HostCgroups.isUnified ? "/sys/fs/cgroup" : "/sys/fs/cgroup/*/"
            let script = "for i in \(roots); do mkdir -p $i/a/b $i/c; done; echo made; sleep 1000"
            try fixture.start("c1", script) {
                $0.linux?.namespaces.append(NamespaceSpec(.cgroup))
                $0.mounts.append(MountSpec(destination: "/sys/fs/cgroup", type: "cgroup", source: "cgroup"))
            }
            #expect(fixture.eventually { File.exists("\(fixture.cgroup("pids"))/c") })
            #expect(File.exists("\(fixture.cgroup("memory"))/a/b"))
            try fixture.must("delete", "--force", "c1")
            #expect(try fixture.traces().filter { $0.hasPrefix("cgroup") } == [])
        }

        @Test func `a group that systemd is to make is refused where it does not run`() throws {
            guard !SystemdConnection.isRunning else { return }
            let fixture = try RuntimeFixture()
            let bundle = try fixture.bundle { $0.linux?.cgroupsPath = "system.slice:martlet:x" }
            for (global, word) in [(["--systemd-cgroup"], "started by systemd"), ([], "--systemd-cgroup")] {
                let output = try fixture.call(global + ["create", "--bundle", bundle, "c1"])
                #expect(output.code == 1)
                #expect(output.stderr.contains(word), "\(output.stderr)")
            }
            let path = try fixture.bundle()
            let output = try fixture.call(["--systemd-cgroup", "create", "--bundle", path, "c1"])
            #expect(output.stderr.contains("slice:prefix:name"), "\(output.stderr)")
            #expect(try fixture.traces() == [])
        }

        @Test func `a container of systemd is a scope with its limits, and goes away with it`() throws {
            guard try SystemdConnection.isRunning && CgroupLayout.detect().isUnified else { return }
            let fixture = try RuntimeFixture()
            let name = "x\(fixture.directory.suffix(6))"
            let bundle = try fixture.bundle("sleep 1000") {
                $0.linux?.cgroupsPath = "system.slice:martlet:\(name)"
                var resources = ResourcesSpec()
                resources.memory = MemorySpec(limit: 64 << 20)
                resources.cpu = CPUSpec(shares: 512, quota: 50_000, period: 100_000)
                resources.pidsLimit = 20
                $0.linux?.resources = resources
            }
            try fixture.must("--systemd-cgroup", "create", "--bundle", bundle, "c1")
            let unit = "martlet-\(name).scope"
            let place = "/sys/fs/cgroup/system.slice/\(unit)"
            #expect(try groups(of: try fixture.state("c1").pid)[""] == "/system.slice/\(unit)")
            func show(_ property: String) throws -> String {
                let result = try Program(
                    "/usr/bin/systemctl", ["show", "--property", property, "--value", unit],
                    environment: fixture.environment
                ).run()
                return String(decoding: result.output, as: UTF8.self).split(separator: "\n").first.map { String($0) }
                    ?? ""
            }
            #expect(try show("ActiveState") == "active")
            #expect(try show("MemoryMax") == "67108864")
            #expect(try show("TasksMax") == "20")
            #expect(try show("Delegate") == "yes")
            #expect(try File.text("\(place)/memory.max") == "67108864")
            #expect(try File.text("\(place)/cpu.max") == "50000 100000")
            #expect(try File.text("\(place)/cpu.weight") == "59")
            try fixture.must("start", "c1")
            try fixture.must("update", "--pids-limit", "30", "--memory", "-1", "c1")
            #expect(try show("TasksMax") == "30")
            #expect(try File.text("\(place)/pids.max") == "30")
            #expect(try File.text("\(place)/memory.max") == "max")
            try fixture.must("delete", "--force", "c1")
            #expect(!File.exists(place))
            #expect(try show("LoadState") == "not-found")
        }

        // MARK: ownership

        private func owner(_ path: String) -> uid_t? {
            var info = stat()
            return stat(path, &info) == 0 ? info.st_uid : nil
        }

        @Test func `a delegated group belongs to its user with the listed files, and with no others`() throws {
            let group = try GroupFixture(GroupFixture.unified())
            let directory = try #require(group.manager.unifiedDirectory)
            try group.manager.delegate(to: 12345)
            #expect(owner(directory) == 12345)
            for file in ["cgroup.procs", "cgroup.subtree_control", "cgroup.threads"] {
                #expect(owner("\(directory)/\(file)") == 12345, "\(file)")
            }
            for file in ["cgroup.freeze", "cgroup.kill", "cgroup.max.depth", "cgroup.events"] {
                #expect(owner("\(directory)/\(file)") == 0, "\(file)")
            }
        }

        @Test func `a group of a host with cgroup v1 is never delegated`() throws {
            guard try !GroupFixture.host().isUnified else { return }
            let group = try GroupFixture(GroupFixture.host())
            try group.manager.delegate(to: 12345)
            for directory in group.manager.directories { #expect(owner(directory) == 0, "\(directory)") }
        }

        @Test func `a container's user owns its group where it can write it`() throws {
            guard try CgroupLayout.detect().isUnified else { return }
            for (options, expected) in [([], 101_000), (["ro"], 0)] as [([String], uid_t)] {
                let fixture = try RuntimeFixture()
                try fixture.start("c1") {
                    // Root of the container has to reach its root filesystem.
                    chmod(fixture.directory, 0o711)
                    chmod("\(fixture.directory)/bundle1", 0o711)
                    $0.process?.user = UserSpec(uid: 1000, gid: 1000)
                    $0.linux?.namespaces += [NamespaceSpec(.cgroup), NamespaceSpec(.user)]
                    $0.linux?.uidMappings = [IDMapping(containerID: 0, hostID: 100_000, size: 65536)]
                    $0.linux?.gidMappings = [IDMapping(containerID: 0, hostID: 100_000, size: 65536)]
                    $0.mounts.append(
                        MountSpec(destination: "/sys/fs/cgroup", type: "cgroup", source: "cgroup", options: options))
                }
                #expect(owner(fixture.cgroup("")) == expected)
                #expect(owner("\(fixture.cgroup(""))/cgroup.procs") == expected)
                #expect(owner("\(fixture.cgroup(""))/pids.max") == 0)
            }
        }
    }
}
