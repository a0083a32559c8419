import JSON
import OCISpec
import Testing

@testable import CDISpec

/// One file after another: what the rules allow, and what each of them refuses in which words.
@Suite struct CDISpecificationTests {
    /// A specification with one device around what a row is about.
    struct Row: Sendable, CustomTestStringConvertible {
        let text: String
        /// The error's beginning; empty: it is valid.
        let error: String
        var testDescription: String { error.isEmpty ? text : error }

        init(text: String, _ error: String = "") {
            self.text = text
            self.error = error
        }

        /// One device with these edits.
        init(_ version: String, edits: String, _ error: String = "") {
            self.init(
                text: """
                    {"cdiVersion":"\(version)","kind":"vendor.com/class","devices":[{"name":"a","containerEdits":{\(edits)}}]}
                    """, error)
        }

        /// These edits for all devices.
        init(_ version: String, all edits: String, _ error: String = "") {
            self.init(version, rest: #","containerEdits":{\#(edits)}"#, error)
        }

        init(
            _ version: String, kind: String = "vendor.com/class", name: String = "a", device: String = "",
            rest: String = "", _ error: String = ""
        ) {
            self.init(
                text: """
                    {"cdiVersion":"\(version)","kind":"\(kind)","devices":[{"name":"\(name)","containerEdits":{"env":["A=b"]}\
                    \(device)}]\(rest)}
                    """, error)
        }
    }

    private static let edits = "$.devices[0].containerEdits"

    static let valid: [Row] = [
        Row("0.3.0"), Row("v0.3.0"), Row("0.8.0"), Row("1.0.0"), Row("1.1.0"),
        Row("0.3.0", kind: "v/c"), Row("0.3.0", kind: "Some-Vendor.example_1.com/c-l_a-s1"),
        Row("0.6.0", kind: "foo.bar.baz/foo-bar123.B_az"),
        Row("0.3.0", name: "a-b_c.d:e"), Row("0.5.0", name: "0"), Row("0.5.0", name: "0:1"),
        Row("0.3.0", all: ""), Row("0.3.0", all: #""env":[]"#), Row("0.3.0", rest: #","containerEdits":null"#),
        Row("0.3.0", rest: #","annotations":{}"#),
        Row("0.6.0", rest: #","annotations":{"a":"","vendor.com/Some.Key_1":"text"}"#),
        Row("0.6.0", device: #","annotations":{"numa":"1"}"#),
        Row("0.3.0", edits: #""env":["A=","B==","C=d e\nf"]"#),
        Row("0.3.0", edits: #""deviceNodes":[{"path":"/dev/x"}]"#),
        Row("0.3.0", edits: #""deviceNodes":[{"path":"/dev/x","hostPath":"","type":"","permissions":""}]"#),
        Row("0.5.0", edits: #""deviceNodes":[{"path":"/dev/x","hostPath":"/dev/y"}]"#),
        Row(
            "0.3.0",
            edits: #""deviceNodes":[{"path":"/dev/x","type":"b","major":8,"minor":1,"fileMode":432,"uid":1,"gid":0}]"#),
        Row("0.3.0", edits: #""deviceNodes":[{"path":"/dev/x","type":"u"},{"path":"/dev/p","type":"p"}]"#),
        Row("0.3.0", edits: #""deviceNodes":[{"path":"/a","permissions":"rw"},{"path":"/b","permissions":"none"}]"#),
        Row("0.3.0", edits: #""mounts":[{"hostPath":"/a","containerPath":"/b","options":["ro","bind"]}]"#),
        Row("0.4.0", edits: #""mounts":[{"hostPath":"tmpfs","containerPath":"/b","type":"tmpfs"}]"#),
        Row(
            "0.3.0",
            edits: """
                "hooks":[{"hookName":"prestart","path":"/h"},{"hookName":"createRuntime","path":"/h","args":["h",""]},
                {"hookName":"createContainer","path":"/h","env":["A=b"]},{"hookName":"startContainer","path":"/h",
                "timeout":1},{"hookName":"poststart","path":"/h"},{"hookName":"poststop","path":"/h"}]
                """),
        Row("0.7.0", edits: #""additionalGids":[0,5,5]"#), Row("0.7.0", edits: #""additionalGIDs":[7]"#),
        Row("0.7.0", edits: #""intelRdt":{}"#), Row("0.7.0", all: #""intelRdt":{"closID":"/"}"#),
        Row("0.7.0", edits: #""intelRdt":{"closID":"c","l3CacheSchema":"L3:0=f","memBwSchema":"MB:0=20"}"#),
        Row("0.7.0", edits: #""intelRdt":{"enableMonitoring":false}"#),
        Row("1.1.0", edits: #""intelRdt":{"schemata":["L2:0=3"],"enableMonitoring":true}"#),
        Row("1.1.0", edits: #""netDevices":[{"hostInterfaceName":"eth1","name":"net0"}]"#),
        Row(
            text: """
                {"devices":[{"containerEdits":{"env":["A=b"]},"name":"a"},{"name":"b","containerEdits":{"env":["A=c"]}}],
                "kind":"vendor.com/class","cdiVersion":"0.3.0"}
                """),
    ]

    static let invalid: [Row] = [
        Row(text: "", "$: "), Row(text: "{", "$"), Row(text: "[]", "$: expected an object"),
        Row(text: #"{"kind":"vendor.com/class","devices":[]}"#, "$.cdiVersion: the member is missing"),
        Row("", #"$.cdiVersion: "" is no version of CDI that is known here: there are 0.3.0 to 1.1.0"#),
        Row("1.2.0", #"$.cdiVersion: "1.2.0" is no version"#), Row("0.3", #"$.cdiVersion: "0.3" is no version"#),
        Row("0.2.0", "$.cdiVersion: 0.2.0 is not read any more, 0.3.0 is the first that is"),
        Row(text: #"{"cdiVersion":1.0,"kind":"v/c"}"#, "$.cdiVersion: expected a string, found a number"),
        Row(text: #"{"cdiVersion":"1.0.0","devices":[]}"#, "$.kind: the member is missing"),
        Row("1.0.0", kind: "vendor.com", #"$.kind: "vendor.com" is no kind: write it as vendor.com/class"#),
        Row("1.0.0", kind: "vendor.com/", "$.kind: "), Row("1.0.0", kind: "/class", "$.kind: "),
        Row("1.0.0", kind: "vendor.com/class/", "$.kind: "), Row("1.0.0", kind: "vendor.com/a/b", "$.kind: "),
        Row("1.0.0", kind: "1vendor.com/class", "$.kind: "), Row("1.0.0", kind: "vendor..com/class", "$.kind: "),
        Row("1.0.0", kind: "vendor.com/-class", "$.kind: "), Row("1.0.0", kind: "vendor.com/class-", "$.kind: "),
        Row("1.0.0", kind: "vendor.com/cl ass", "$.kind: "), Row("1.0.0", kind: "vendor:x/class", "$.kind: "),
        Row("1.0.0", kind: "vendor.com/" + String(repeating: "a", count: 64), "$.kind: "),
        Row("1.0.0", kind: String(repeating: "a.", count: 127) + "a/class", "$.kind: "),
        Row(
            "0.5.0", kind: "vendor.com/cl.ass",
            "$.kind: a '.' in a class came with CDI 0.6.0, and cdiVersion is 0.5.0: raise it or leave this out"),
        Row(text: #"{"cdiVersion":"1.0.0","kind":"v/c"}"#, "$.devices: a specification needs a device"),
        Row(text: #"{"cdiVersion":"1.0.0","kind":"v/c","devices":[]}"#, "$.devices: a specification needs a device"),
        Row(text: #"{"cdiVersion":"1.0.0","kind":"v/c","devices":{}}"#, "$.devices: expected an array"),
        Row("1.0.0", name: "", #"$.devices[0].name: "" is no device's name"#),
        Row("1.0.0", name: "-a", "$.devices[0].name: "), Row("1.0.0", name: "a.", "$.devices[0].name: "),
        Row("1.0.0", name: "a/b", "$.devices[0].name: "), Row("1.0.0", name: "ä", "$.devices[0].name: "),
        Row("1.0.0", name: String(repeating: "a", count: 254), "$.devices[0].name: "),
        Row("0.4.0", name: "0", "$.devices[0].name: a name with a digit first came with CDI 0.5.0"),
        Row(
            text: """
                {"cdiVersion":"1.0.0","kind":"v/c","devices":[{"name":"a","containerEdits":{"env":["A=b"]}},
                {"name":"a","containerEdits":{"env":["A=c"]}}]}
                """, #"$.devices[1].name: "a" is the name of devices[0] already"#),
        Row("1.0.0", edits: "", "$.devices[0].containerEdits: a device needs edits"),
        Row("1.0.0", edits: #""env":[],"mounts":[]"#, "$.devices[0].containerEdits: a device needs edits"),
        Row(
            text: #"{"cdiVersion":"1.0.0","kind":"v/c","devices":[{"name":"a"}]}"#,
            "$.devices[0].containerEdits: a device needs edits"),
        Row("1.0.0", rest: #","more":1"#, "$.more: the member is not known"),
        Row("1.0.0", rest: #","Annotations":{}"#, "$.Annotations: the member is not known"),
        Row("1.0.0", device: #","id":1"#, "$.devices[0].id: the member is not known"),
        Row("1.0.0", edits: #""envs":[]"#, "\(edits).envs: the member is not known"),
        Row("1.0.0", edits: #""deviceNodes":[{"path":"/a","mode":1}]"#, "\(edits).deviceNodes[0].mode: the member is"),
        Row("1.0.0", rest: #","containerEdits":[]"#, "$.containerEdits: expected an object, found an array"),
        Row("0.5.0", rest: #","annotations":{"a":"b"}"#, "$.annotations: annotations came with CDI 0.6.0"),
        Row("0.5.0", device: #","annotations":{"a":"b"}"#, "$.devices[0].annotations: annotations came with CDI 0.6.0"),
        Row("1.0.0", rest: #","annotations":{"a b":"c"}"#, #"$.annotations["a b"]: the key is no name"#),
        Row("1.0.0", rest: #","annotations":{"a_b/c":"d"}"#, #"$.annotations["a_b/c"]: the key is no name"#),
        Row("1.0.0", rest: #","annotations":{"a":1}"#, "$.annotations.a: expected a string, found an integer"),
        Row("1.0.0", edits: #""env":["A"]"#, #"\#(edits).env[0]: "A" is not of the form NAME=value"#),
        Row("1.0.0", edits: #""env":["A=b","=b"]"#, #"\#(edits).env[1]: "=b" is not of the form NAME=value"#),
        Row("1.0.0", edits: #""env":["A=\u0000"]"#, "\(edits).env[0]: a NUL character is not allowed here"),
        Row("1.0.0", all: #""env":[""]"#, #"$.containerEdits.env[0]: "" is not of the form NAME=value"#),
        Row("1.0.0", edits: #""deviceNodes":[{}]"#, "\(edits).deviceNodes[0].path: the member is missing"),
        Row("1.0.0", edits: #""deviceNodes":[{"path":""}]"#, #"\#(edits).deviceNodes[0].path: "" is no absolute path"#),
        Row("1.0.0", edits: #""deviceNodes":[{"path":"dev/x"}]"#, "\(edits).deviceNodes[0].path: "),
        Row("1.0.0", edits: #""deviceNodes":[{"path":"/a","hostPath":"b"}]"#, "\(edits).deviceNodes[0].hostPath: "),
        Row(
            "0.4.0", edits: #""deviceNodes":[{"path":"/a","hostPath":"/b"}]"#,
            "\(edits).deviceNodes[0].hostPath: hostPath came with CDI 0.5.0"),
        Row(
            "1.0.0", edits: #""deviceNodes":[{"path":"/a","type":"d"}]"#,
            #"\#(edits).deviceNodes[0].type: "d" is not one of c, u, b, p"#),
        Row(
            "1.0.0", edits: #""deviceNodes":[{"path":"/a","major":-1}]"#,
            "\(edits).deviceNodes[0].major: the integer is out of range"),
        Row(
            "1.0.0", edits: #""deviceNodes":[{"path":"/a","uid":4294967295}]"#,
            "\(edits).deviceNodes[0].uid: 4294967295 is no id"),
        Row(
            "1.0.0", edits: #""deviceNodes":[{"path":"/a","permissions":"rx"}]"#,
            #"\#(edits).deviceNodes[0].permissions: "rx" is neither made of r, w and m nor none"#),
        Row(
            "1.0.0", edits: #""mounts":[{"containerPath":"/b"}]"#, "\(edits).mounts[0].hostPath: the member is missing"),
        Row(
            "1.0.0", edits: #""mounts":[{"hostPath":"/a"}]"#, "\(edits).mounts[0].containerPath: the member is missing"),
        Row("1.0.0", edits: #""mounts":[{"hostPath":"/a","containerPath":"b"}]"#, "\(edits).mounts[0].containerPath: "),
        Row("1.0.0", edits: #""mounts":[{"hostPath":"a","containerPath":"/b"}]"#, "\(edits).mounts[0].hostPath: "),
        Row(
            "1.0.0", edits: #""mounts":[{"hostPath":"a","containerPath":"/b","type":"none","options":["rbind"]}]"#,
            #"\#(edits).mounts[0].hostPath: "a" is no absolute path"#),
        Row(
            "0.3.0", edits: #""mounts":[{"hostPath":"/a","containerPath":"/b","type":"bind"}]"#,
            "\(edits).mounts[0].type: a mount's type came with CDI 0.4.0"),
        Row(
            "1.0.0", edits: #""mounts":[{"hostPath":"/a","containerPath":"/b","options":"ro"}]"#,
            "\(edits).mounts[0].options: expected an array, found a string"),
        Row(
            "1.0.0", edits: #""hooks":[{"hookName":"create","path":"/h"}]"#,
            #"\#(edits).hooks[0].hookName: "create" is not one of prestart, createRuntime, createContainer"#),
        Row("1.0.0", edits: #""hooks":[{"path":"/h"}]"#, "\(edits).hooks[0].hookName: the member is missing"),
        Row("1.0.0", edits: #""hooks":[{"hookName":"poststop","path":"h"}]"#, "\(edits).hooks[0].path: "),
        Row(
            "1.0.0", edits: #""hooks":[{"hookName":"poststop","path":"/h","env":["A"]}]"#,
            #"\#(edits).hooks[0].env[0]: "A" is not of the form NAME=value"#),
        Row(
            "1.0.0", edits: #""hooks":[{"hookName":"poststop","path":"/h","timeout":0}]"#,
            "\(edits).hooks[0].timeout: 0 is no time-out: 1 to 4294967295 seconds are"),
        Row("0.6.0", edits: #""intelRdt":{}"#, "\(edits).intelRdt: intelRdt came with CDI 0.7.0"),
        Row("1.1.0", edits: #""intelRdt":{"closID":".."}"#, #"\#(edits).intelRdt.closID: ".." is no name"#),
        Row("1.1.0", edits: #""intelRdt":{"closID":"a/b"}"#, #"\#(edits).intelRdt.closID: "a/b" is no name"#),
        Row("1.0.0", edits: #""intelRdt":{"enableCMT":true}"#, "\(edits).intelRdt.enableCMT: CDI 1.1.0 dropped"),
        Row("1.0.0", edits: #""intelRdt":{"schemata":[]}"#, "\(edits).intelRdt.schemata: schemata came with CDI 1.1.0"),
        Row(
            "1.0.0", edits: #""intelRdt":{"enableMonitoring":true}"#,
            "\(edits).intelRdt.enableMonitoring: enableMonitoring came with CDI 1.1.0"),
        Row("0.6.0", edits: #""additionalGids":[1]"#, "\(edits).additionalGids[0]: additionalGids came with CDI 0.7.0"),
        Row("0.7.0", edits: #""additionalGids":[-1]"#, "\(edits).additionalGids[0]: the integer is out of range"),
        Row("0.7.0", edits: #""additionalGids":[4294967295]"#, "\(edits).additionalGids[0]: 4294967295 is no group id"),
        Row(
            "1.0.0", edits: #""netDevices":[{"hostInterfaceName":"a","name":"b"}]"#,
            "\(edits).netDevices[0]: netDevices came with CDI 1.1.0"),
        Row(
            "1.1.0", edits: #""netDevices":[{"hostInterfaceName":"a"}]"#,
            "\(edits).netDevices[0].name: the member is missing"),
        Row(
            "1.1.0", edits: #""netDevices":[{"hostInterfaceName":"a/b","name":"b"}]"#,
            #"\#(edits).netDevices[0].hostInterfaceName: "a/b" is no network device's name"#),
        Row(
            "1.1.0",
            edits: #""netDevices":[{"hostInterfaceName":"a","name":"x"},{"hostInterfaceName":"a","name":"y"}]"#,
            "\(edits).netDevices[1].hostInterfaceName: a is there twice"),
        Row(
            "1.1.0",
            edits: #""netDevices":[{"hostInterfaceName":"a","name":"x"},{"hostInterfaceName":"b","name":"x"}]"#,
            "\(edits).netDevices[1].name: x is there twice"),
        Row(
            "1.1.0", edits: #""env":["# + String(repeating: #""A=b","#, count: 4096) + #""A=b"]"#,
            "\(edits).env: 4097 elements are more than the 4096 allowed"),
    ]

    @Test(arguments: valid) func `what the rules allow is read, and written so that it is read again`(row: Row) throws {
        let specification = try CDISpecification.parse(Array(row.text.utf8))
        #expect(try CDISpecification.parse(specification.encoded()) == specification)
        #expect(specification.minimumVersion <= specification.version)
    }

    @Test(arguments: invalid) func `what a rule forbids is refused with its place`(row: Row) throws {
        let error = #expect(throws: JSONError.self) { try CDISpecification.parse(Array(row.text.utf8)) }
        let text = try #require(error?.description)
        #expect(text.hasPrefix(row.error), "\(text)")
        #expect(!text.utf8.contains { $0 < 32 } && text.utf8.count < 600, "\(text)")
    }

    @Test(arguments: valid)
    func `a specification that is made says the lowest version that takes it, and no lower one would`(row: Row) throws {
        let read = try CDISpecification.parse(Array(row.text.utf8))
        let made = try CDISpecification(
            kind: read.kind, annotations: read.annotations, devices: read.devices, edits: read.edits)
        #expect(made.version == read.minimumVersion && made.devices == read.devices && made.edits == read.edits)
        for version in CDIVersion.allCases where version < made.version {
            let older = CDISpecification(
                version: version, kind: made.kind, annotations: made.annotations, devices: made.devices,
                edits: made.edits)
            #expect(throws: JSONError.self) { try CDISpecification.parse(older.encoded()) }
        }
    }

    @Test func `what is made from values is checked like what is read`() throws {
        let kind = try #require(CDIKind("vendor.com/class"))
        #expect(throws: JSONError.self) { try CDISpecification(kind: kind, devices: []) }
        #expect(throws: JSONError.self) {
            try CDISpecification(kind: kind, devices: [CDIDevice("a", edits: CDIEdits())])
        }
        #expect(throws: JSONError.self) {
            try CDISpecification(kind: kind, devices: [CDIDevice("a b", edits: CDIEdits(env: ["A=b"]))])
        }
    }

    @Test(arguments: [
        ("vendor.com/class=a", true), ("v/c=0:1", true), ("vendor.com/class=a=b", false), ("vendor.com/class=", false),
        ("vendor.com/class", false), ("=a", false), ("/dev/x=y", false), ("/dev/x", false), ("class=a", false),
        ("vendor.com/class=a:rw", true), ("", false), ("vendor.com/cl=ass/x", false),
        ("vendor.com/class=/dev/x", false),
    ])
    func `a device's whole name is never a path`(text: String, isName: Bool) {
        #expect(CDIName(text)?.description == (isName ? text : nil))
    }
}
