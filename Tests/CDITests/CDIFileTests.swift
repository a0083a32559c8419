import CDISpec
import Glibc
import JSON
import Kernel
import OCISpec
import Testing

@testable import CDI

@Suite struct CDIFileTests {
    private func parse(_ text: String) throws -> CDISpecification {
        try CDIFile.parse(Array(text.utf8), isYAML: true)
    }

    @Test func `YAML says what JSON says`() throws {
        let yaml = """
            ---
            cdiVersion: 1.1.0
            kind: vendor.com/class
            annotations: {timeout: 5, numa: "0"}
            containerEdits:
              env:
              - VISIBLE=yes
              hooks:
              - hookName: createContainer
                path: /usr/bin/hook
                args: [hook, update, --folder, "/lib", 7]
                timeout: 5
            devices:
            - name: 0
              containerEdits:
                deviceNodes:
                - path: /dev/x0
                  major: 195
                  minor: 0
                  fileMode: 0660
                  type: c
                additionalGids: [44, 0x1F]
            - name: true
              containerEdits:
                intelRdt: {enableMonitoring: true}
            """
        let json = """
            {"cdiVersion":"1.1.0","kind":"vendor.com/class","annotations":{"timeout":"5","numa":"0"},
            "containerEdits":{"env":["VISIBLE=yes"],"hooks":[{"hookName":"createContainer","path":"/usr/bin/hook",
            "args":["hook","update","--folder","/lib","7"],"timeout":5}]},"devices":[
            {"name":"0","containerEdits":{"deviceNodes":[{"path":"/dev/x0","major":195,"minor":0,"fileMode":432,
            "type":"c"}],"additionalGids":[44,31]}},
            {"name":"true","containerEdits":{"intelRdt":{"enableMonitoring":true}}}]}
            """
        #expect(try parse(yaml) == CDISpecification.parse(Array(json.utf8)))
        #expect(try parse(json) == CDISpecification.parse(Array(json.utf8)), "JSON is YAML")
    }

    @Test(arguments: [
        ("cdiVersion: 0.5", "$.cdiVersion: versions of YAML read"),
        ("cdiVersion: 0.5.0\nkind: [v/c]", "$.kind: expected a"),
        ("cdiVersion: 0.5.0\nkind: v/c\ndevices: [{name: on}]", "$.devices[0].name: versions of YAML read \"on\""),
        ("cdiVersion: 0.5.0\nkind: v/c\ndevices: ", "$.devices: a specification needs a device"),
        (
            "cdiVersion: 0.5.0\nkind: v/c\ndevices: [{name: a, containerEdits: {deviceNodes: [{path: /a, major: x}]}}]",
            "$.devices[0].containerEdits.deviceNodes[0].major: expected an integer, found a string"
        ), ("a: b: c", "$: no YAML at line 1"), ("", "$: there is no document"),
    ])
    func `mistakes in YAML are named with their place`(text: String, error: String) throws {
        let thrown = #expect(throws: JSONError.self) { try parse(text) }
        #expect(thrown?.description.hasPrefix(error) == true, "\(thrown?.description ?? "")")
    }

    @Test func `devices are published whole, again when they change, and withdrawn with the last`() throws {
        let place = try CDIPlace()
        let directory = "\(place.path)/made/cdi"
        let kind = try #require(CDIKind("martlet.example/gpu"))
        func publish(_ devices: [CDIDevice]) throws(CDIError) {
            try CDIFile.publish(
                kind, writer: "tests", annotations: ["made-by": "a test"], devices: devices,
                edits: CDIEdits(
                    mounts: [CDIMount(hostPath: "/lib/x.so", containerPath: "/lib/x.so", options: ["ro", "bind"])],
                    hooks: [CDIHook(.createContainer, HookSpec(path: "/hook", args: ["hook"]))]),
                in: directory)
        }
        let one = CDIDevice("0", edits: CDIEdits(env: ["A=b"], deviceNodes: [CDIDeviceNode(path: "/dev/x0")]))
        let file = "\(directory)/martlet.example-gpu_tests.json"
        func inode() -> UInt {
            var info = stat()
            return stat(file, &info) == 0 ? info.st_ino : 0
        }
        try publish([])
        #expect(!File.exists(file))
        try publish([one])
        let first = inode()
        let registry = CDIRegistry([directory])
        #expect(registry.refresh().names.map(\.description) == ["martlet.example/gpu=0"])
        #expect(registry.refresh().sources.first?.specification?.version == .v0_6_0)
        try publish([one])
        #expect(inode() == first, "the same is not written again")
        let edits = CDIEdits(env: ["A=c"], deviceNodes: [CDIDeviceNode(path: "/dev/x1")])
        try publish([one, CDIDevice("1", edits: edits)])
        #expect(inode() != first)
        #expect(try File.list(directory) == ["martlet.example-gpu_tests.json"], "nothing is left beside it")
        #expect(registry.refresh().names.count == 2)
        #expect(throws: CDIError.self, "a rule is broken") { try publish([one, one]) }
        #expect(registry.refresh().names.count == 2 && registry.refresh().warnings == [])
        try publish([])
        #expect(try File.list(directory) == [])
        #expect(registry.refresh().names == [])
    }

    @Test func `nothing is published beside somebody else's specification of the same kind`() throws {
        let place = try CDIPlace()
        let registry = CDIRegistry(place.directories)
        let kind = try #require(CDIKind("vendor.com/class"))
        let device = CDIDevice("0", edits: CDIEdits(env: ["A=b"]))
        func publish(_ devices: [CDIDevice]) throws(CDIError) -> String? {
            try registry.publish(kind, writer: "tests", devices: devices, edits: CDIEdits())
        }
        let own = try #require(place.directories.last) + "/vendor.com-class_tests.json"
        #expect(try publish([device]) == nil)
        #expect(File.exists(own))
        // Also in a directory that ours would go before.
        try place.devices("etc/a.json", "a")
        #expect(try publish([device]) == "\(place.path)/etc/a.json")
        #expect(!File.exists(own), "and ours goes")
        #expect(registry.refresh().names.map(\.description) == ["vendor.com/class=a"])
        try place.write("etc/a.json", "half")
        #expect(try publish([device]) == "\(place.path)/etc/a.json", "while it is being written too")
        try File.removeFile("\(place.path)/etc/a.json")
        #expect(try publish([device]) == nil)
        #expect(File.exists(own))
        // The same directory by another name has no file of somebody else's.
        let twice = CDIRegistry(["\(place.path)/run/../run"] + place.directories)
        #expect(try twice.publish(kind, writer: "tests", devices: [device], edits: CDIEdits()) == nil)
        chmod("\(place.path)/run", 0o777)
        #expect(throws: CDIError.self, "others could put hooks there") { try publish([]) }
        chmod("\(place.path)/run", 0o755)
        try place.devices("etc/b.json", "b", kind: "vendor.com/other")
        #expect(try publish([device]) == nil)
        #expect(File.exists(own))
        #expect(try publish([]) == nil)
        #expect(!File.exists(own))
    }

    @Test func `a device node is what the host's file is`() throws {
        #expect(try CDIHostNode(of: "/dev/null").kind == .character)
        let null = try CDIHostNode(of: "/dev/null")
        #expect(null.major == 1 && null.minor == 3 && null.mode & 0o600 == 0o600)
        for path in ["/dev", "/proc/self", "/dev/none"] {
            #expect(throws: CDIError.self, "\(path)") { try CDIHostNode(of: path) }
        }
    }
}
