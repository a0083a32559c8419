import Cgroups
import JSON
import OCISpec
import Testing

@testable import ContainerRuntime

/// What the runtime remembers of a container, across versions of the runtime.
@Suite struct ContainerRecordTests {
    /// As the first version wrote it, without anything optional.
    private static let first = """
        {"version":1,"ociVersion":"1.0.2","id":"box","pid":7,"startTime":99,"bundle":"/b","rootfs":"/b/rootfs",
        "created":"2026-11-22T10:51:35.675018374Z","cgroup":{"path":"/martlet-box","hierarchies":[
        {"mountPoint":"/sys/fs/cgroup","version":2,"controllers":["memory","pids"]}]},"namespaces":["pid","mount"],
        "process":{"user":{"uid":0,"gid":0},"args":["sh"],"cwd":"/"},"ownsPids":true}
        """

    private func record(_ text: String) throws -> ContainerRecord {
        try ContainerRecord(JSONReader(try JSONValue.parse(text)))
    }

    private func changed(_ old: String, _ new: String) -> String {
        Self.first.replacing(old, with: new)
    }

    @Test func `a record of the first version is read, and written as one`() throws {
        let record = try record(Self.first)
        #expect(record.pid == 7 && record.startTime == 99 && record.ownsPids)
        #expect(record.cgroup.manager.layout.hierarchies.map(\.base) == [""])
        #expect(record.poststop.isEmpty && record.seccompFlags == nil && record.resourceControl == nil)
        #expect(record.json["version"] == 1, "an earlier runtime may have it")
        let again = try ContainerRecord(JSONReader(record.json))
        #expect(again.json.serialized(sortedKeys: true) == record.json.serialized(sortedKeys: true))
    }

    @Test func `a group that counts from another has a version that earlier runtimes refuse`() throws {
        let text = changed(#""pids"]"#, #""pids"],"base":"/user""#)
        let record = try record(text)
        #expect(record.cgroup.manager.directories == ["/sys/fs/cgroup/user/martlet-box"])
        #expect(record.json["version"] == 2)
    }

    @Test func `members that a later runtime adds are passed over`() throws {
        #expect(try record(changed(#""pid":7"#, #""pid":7,"later":{"x":1}"#)).pid == 7)
    }

    @Test(arguments: ["3", "0", "-1", "9223372036854775807"])
    func `another version is refused with what to do`(_ version: String) {
        let error = #expect(throws: RuntimeError.self) {
            try record(changed(#""version":1,"o"#, #""version":\#(version),"o"#))
        }
        let text = error?.description ?? ""
        #expect(text.contains("version \(version)") && text.contains("1 to 2") && text.contains("martlet-runtime"))
    }
}
