import JSON
import Model
import Testing

@Suite struct ModelInJSON {
    func text(_ value: some Encodable) throws -> String {
        String(decoding: try JSONCoding.encode(value, sortedKeys: true), as: UTF8.self)
    }

    @Test func alternativesAreObjectsWithOneMember() throws {
        #expect(try text(Workload.Scale.replicated(3)) == #"{"replicated":3}"#)
        #expect(try text(Workload.Scale.global) == #"{"global":{}}"#)
        #expect(try text(HealthCheck.Probe.command(["a"])) == #"{"command":["a"]}"#)
        #expect(try text(HealthCheck.Probe.http(port: 80, path: "/x")) == #"{"http":{"path":"/x","port":80}}"#)
        #expect(try text(Mount.Source.bind(path: "/a")) == #"{"bind":{"path":"/a"}}"#)
    }

    @Test func alternativesComeBack() throws {
        for scale in [Workload.Scale.replicated(0), .global] {
            #expect(try JSONCoding.decode(Workload.Scale.self, from: Array(text(scale).utf8), strict: true) == scale)
        }
        for probe in [HealthCheck.Probe.command(["a", "b"]), .tcp(port: 5), .http(port: 80, path: "/")] {
            #expect(try JSONCoding.decode(HealthCheck.Probe.self, from: Array(text(probe).utf8), strict: true) == probe)
        }
    }

    @Test(arguments: [#"{}"#, #"{"replicated":1,"global":{}}"#, #"{"global":{"x":1}}"#, #"{"some":1}"#, "3"])
    func wrongAlternativesAreErrors(json: String) {
        #expect(throws: JSONError.self) {
            try JSONCoding.decode(Workload.Scale.self, from: Array(json.utf8), strict: true)
        }
    }

    @Test func anUnknownFieldOfASpecIsNamed() {
        let json = #"{"containers":[{"image":"a","limits":{"memroy":1}}]}"#
        #expect {
            try JSONCoding.decode(PodSpec.self, from: Array(json.utf8), strict: true)
        } throws: {
            "\($0)".contains("$.containers[0].limits") && "\($0)".contains("memroy")
        }
    }
}
