import JSON
import OCISpec
import Testing

@testable import ContainerRuntime

/// `linux.intelRdt`, as it is checked and as it is remembered.
@Suite struct ResourceControlRecordTests {
    private func spec(_ shape: (inout IntelRdtSpec) -> Void) -> IntelRdtSpec {
        var spec = IntelRdtSpec()
        shape(&spec)
        return spec
    }

    @Test func `cache, bandwidth, and the rest are written in this order`() throws {
        let lines = try ContainerResourceControl.schemata(
            spec {
                $0.schemata = ["L2:0=f", "MB:1=30"]
                $0.memBwSchema = "MB:0=20;1=70"
                $0.l3CacheSchema = "L3:0=7f0;1=1f"
            })
        #expect(lines == ["L3:0=7f0;1=1f", "MB:0=20;1=70", "L2:0=f", "MB:1=30"])
    }

    @Test func `a cache that is divided between code and data has two lines`() throws {
        let lines = try ContainerResourceControl.schemata(spec { $0.l3CacheSchema = "L3CODE:0=f\nL3DATA:0=3\n" })
        #expect(lines == ["L3CODE:0=f", "L3DATA:0=3"])
    }

    @Test func `what is no line of its kind is refused by its place`() {
        let cases: [(IntelRdtSpec, String)] = [
            (spec { $0.l3CacheSchema = "L3:0=f\nMB:0=1" }, "linux.intelRdt.l3CacheSchema"),
            (spec { $0.l3CacheSchema = "L3:0=f\u{0}" }, "linux.intelRdt.l3CacheSchema"),
            (spec { $0.memBwSchema = "MB:0=1\nMB:1=1" }, "linux.intelRdt.memBwSchema"),
            (spec { $0.l3CacheSchema = "0=f" }, "linux.intelRdt.l3CacheSchema"),
            (spec { $0.memBwSchema = "L3:0=f" }, "linux.intelRdt.memBwSchema"),
            (spec { $0.schemata = ["L3:0=f", "../tasks:1"] }, "linux.intelRdt.schemata[1]"),
            (spec { $0.schemata = [":0=1"] }, "linux.intelRdt.schemata[0]"),
            (spec { $0.schemata = [""] }, "linux.intelRdt.schemata[0]"),
        ]
        for (spec, place) in cases {
            let error = #expect(throws: RefusedField.self) { try ContainerResourceControl.schemata(spec) }
            #expect(error?.path == place)
        }
    }

    @Test func `a record keeps what has to be found again`() throws {
        for text in [
            #"{"root":"/sys/fs/resctrl","group":"box","own":true,"monitoring":"box/mon_groups/box"}"#,
            #"{"root":"/r","group":"","own":false}"#,
        ] {
            let value = try JSONValue.parse(text)
            #expect(
                try ContainerResourceControl(JSONReader(value)).json.serialized(sortedKeys: true)
                    == value.serialized(sortedKeys: true))
        }
    }
}
