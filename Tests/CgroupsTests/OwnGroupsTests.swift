import Cgroups
import Testing

/// Where relative paths start, from the text of /proc/self/cgroup.
@Suite struct OwnGroupsTests {
    private func layout(_ text: String = CgroupLayoutTests.hybrid) -> CgroupLayout { CgroupLayoutTests.parse(text) }

    private func directories(_ layout: CgroupLayout) -> [String: String] {
        var found: [String: String] = [:]
        for hierarchy in layout.hierarchies { found[hierarchy.mountPoint] = hierarchy.directory("/x") }
        return found
    }

    @Test func oldHierarchiesStartFromTheOwnGroupAndTheUnifiedOneBesideIt() throws {
        let moved = try layout().startingFromOwnGroups(
            """
            7:memory:/user/a
            6:devices:/
            5:name=systemd:/s/t
            4:cpu,cpuacct:/c
            0::/user/session.scope
            """)
        let found = directories(moved)
        #expect(found["/sys/fs/cgroup/memory"] == "/sys/fs/cgroup/memory/user/a/x")
        #expect(found["/sys/fs/cgroup/devices"] == "/sys/fs/cgroup/devices/x")
        #expect(found["/sys/fs/cgroup/systemd"] == "/sys/fs/cgroup/systemd/s/t/x")
        #expect(found["/sys/fs/cgroup/cpu,cpuacct"] == "/sys/fs/cgroup/cpu,cpuacct/c/x")
        #expect(found["/sys/fs/cgroup/unified"] == "/sys/fs/cgroup/unified/user/x")
    }

    @Test func aPathCountsFromWhatTheMountShows() throws {
        let bound = layout("35 31 0:32 /docker/a /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory")
        let moved = try bound.startingFromOwnGroups("7:memory:/docker/a/inner\n")
        #expect(directories(moved)["/sys/fs/cgroup/memory"] == "/sys/fs/cgroup/memory/inner/x")
        for outside in ["/docker/b", "/docker/ab", "/../x", "/docker/a/../b", "/docker/a/../\u{301}b"] {
            let error = #expect(throws: CgroupError.self) { try bound.startingFromOwnGroups("7:memory:\(outside)\n") }
            #expect(error?.kind == .invalidPath, "\(outside)")
        }
    }

    @Test func aHierarchyWithoutALineStartsFromItsRoot() throws {
        #expect(try layout().startingFromOwnGroups("") == layout())
    }

    @Test(
        arguments: [
            [".."], ["a/../b"], ["a/../\u{301}b"], ["."], ["cpu:../x"], [":x"], ["cpu,:x"], ["cpu:a", "cpu:b"],
            ["a", "b"],
            ["a", "cpu:b"],
            ["a\u{7}"], [String(repeating: "a/", count: 17)],
        ])
    func placesOutsideAndUnclearOnesAreRefused(texts: [String]) {
        let error = #expect(throws: CgroupError.self) { try CgroupSubgroups(texts) }
        #expect(error?.kind == .invalidPath)
    }

    @Test(arguments: [["sub"], ["/sub/"], ["memory,cpu:sub", "name=systemd:/"], ["/"]])
    func placesBelowTheGroupAreTaken(texts: [String]) throws {
        #expect(try !CgroupSubgroups(texts).isEmpty)
    }
}
