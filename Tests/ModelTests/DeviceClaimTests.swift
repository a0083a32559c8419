import JSON
import Model
import Testing

@Suite struct DeviceClaimExpressions {
    func claim(_ text: String) throws -> DeviceClaim { try DeviceClaim(expression: text) }

    func problem(_ text: String) -> String? {
        do throws(DeviceClaimProblem) {
            _ = try DeviceClaim(expression: text)
            return nil
        } catch {
            return error.description
        }
    }

    @Test func aNumberIsACount() throws {
        #expect(try claim("2") == DeviceClaim(count: 2))
        #expect(try claim("2").wanted == 2)
        #expect(try claim("model=T4").wanted == 1)
        #expect(try claim("all").wanted == nil)
        #expect(try claim("count=all") == claim("all"))
        #expect(try claim("id=a,id=b").wanted == 2)
    }

    @Test func attributesAreTerms() throws {
        #expect(
            try claim("model=A100*, memory>=40g,count=2")
                == DeviceClaim(count: 2, model: "A100*", memory: 40 << 30))
        #expect(
            try claim(
                "vendor=nvidia,driver>=550.54,cuda>=12.4,capability>=8.0,profile=1g.*,sharing=share,on-unhealthy=end")
                == DeviceClaim(
                    vendor: "nvidia", driver: "550.54", runtime: "12.4", capability: "8.0", profile: "1g.*",
                    sharing: .share, onUnhealthy: .end))
        #expect(try claim("memory>=512MiB,1").memory == 512 << 20)
    }

    @Test(arguments: [
        "1", "all", "count=2,model=A100*,memory>=40g", "id=GPU-1,id=GPU-2,on-unhealthy=restart",
        "vendor=amd,driver>=6.1,cuda>=12,capability>=gfx942,profile=CPX,sharing=share", "memory>=1025",
    ])
    func whatIsWrittenIsReadAsTheSame(text: String) throws {
        let read = try claim(text)
        #expect(try claim(read.expression).expression == read.expression)
        #expect(read.expression.split(separator: ",").count == text.split(separator: ",").count)
    }

    @Test func aFractionIsRefusedWithWhatGoes() throws {
        #expect(problem("0.5")?.contains("0.5 is no whole number: devices are given whole") == true)
        #expect(problem("count=1.5")?.contains("sharing=share") == true)
        #expect(problem(".5")?.contains("no whole number") == true)
    }

    @Test(arguments: [
        ("", "is no term"), ("1,,2", "is no term"), ("two", "'two' is no term"), ("1,2", "a count is said twice"),
        ("1,count=2", "a count is said twice"), ("all,2", "exclude each other"),
        ("model=a,model=b", "model is said twice"),
        ("memory=40g", "write memory>=40g"), ("model>=a", "model goes with = only"),
        ("memory>=x", "no amount of memory"),
        ("memory>=-1", "no amount of memory"), ("memory>=99999999t", "no amount of memory"),
        ("color=red", "'color' is no attribute"), ("model=", "model has no value"), ("sharing=half", "whole, share"),
        ("on-unhealthy=weep", "stay, restart, end"), ("count=x", "'x' is no number"), ("memory>40g", "write memory>="),
        ("99999999999999999999", "no whole number"),
    ])
    func whatIsNoClaimSaysWhy(text: String, words: String) {
        #expect(problem(text)?.contains(words) == true, "\(problem(text) ?? "accepted")")
    }
}

@Suite struct DeviceClaimAdmission {
    /// The refusal of a container with these claims; nil: it is admitted.
    func refusal(_ claims: [DeviceClaim]) -> String? {
        var pod = PodSpec(containers: [ContainerSpec(image: "busybox")])
        pod.containers[0].deviceClaims = claims
        do throws(AdmissionError) {
            _ = try Admission(policy: .confined).pod(pod, kind: .container) { _ in .init(digest: "sha256:1") }
            return nil
        } catch {
            return "\(error)"
        }
    }

    @Test func whatCanBeMeantIsAdmittedForEverybody() {
        #expect(refusal([DeviceClaim()]) == nil)
        #expect(refusal([DeviceClaim(all: true, model: "/H[12]00/")]) == nil)
        #expect(refusal([DeviceClaim(count: 64)]) == nil)
        #expect(refusal([DeviceClaim(ids: ["GPU-1", "0:1"])]) == nil)
        #expect(refusal([DeviceClaim(count: 2, ids: ["GPU-1", "1"], capability: "gfx942")]) == nil)
        #expect(refusal([DeviceClaim(driver: "550.54.15", runtime: "12.4", sharing: .share)]) == nil)
    }

    @Test(arguments: [
        (DeviceClaim(count: 0), "deviceClaims[0].count: 0 devices"), (DeviceClaim(count: -1), "[0].count"),
        (DeviceClaim(count: 65), "1 to 64"), (DeviceClaim(count: 1, all: true), "goes without all"),
        (DeviceClaim(all: true, ids: ["a"]), "[0].ids: go without all"),
        (DeviceClaim(count: 2, ids: ["a"]), "is not the number of ids, 1"),
        (DeviceClaim(ids: ["a b"]), "'a b' is no device's id"), (DeviceClaim(ids: ["a", "a"]), "'a' is claimed twice"),
        (DeviceClaim(all: true, sharing: .share), "a share of all"),
        (DeviceClaim(kind: "fpga"), "'fpga' are not known"),
        (DeviceClaim(model: "/(/"), "[0].model: '/(/' is no regular expression"), (DeviceClaim(model: ""), "[0].model"),
        (DeviceClaim(memory: 0), "[0].memory"), (DeviceClaim(memory: 1 << 51), "[0].memory"),
        (DeviceClaim(driver: "new"), "[0].driver: 'new' is no version"), (DeviceClaim(runtime: "12."), "[0].runtime"),
        (DeviceClaim(capability: ""), "[0].capability"), (DeviceClaim(vendor: "a,b"), "[0].vendor"),
        (DeviceClaim(driverFeatures: [""]), "[0].driverFeatures[0]"),
    ])
    func whatCannotBeMeantIsRefusedWithItsField(claim: DeviceClaim, words: String) {
        let refusal = refusal([claim])
        #expect(refusal?.contains(words) == true, "\(refusal ?? "admitted")")
        #expect(refusal?.hasPrefix("$.pod.containers[0].deviceClaims[0]") == true)
    }

    @Test func claimsTogetherAreBounded() {
        #expect(refusal([DeviceClaim(count: 64), DeviceClaim()])?.contains("65 devices are more than the 64") == true)
        #expect(refusal(Array(repeating: DeviceClaim(), count: 17))?.contains("17 claims") == true)
        #expect(
            refusal([DeviceClaim(ids: ["a"]), DeviceClaim(ids: ["a"])])?.contains("deviceClaims[1].ids[0]") == true)
    }

    @Test func aFractionInJSONIsNoCount() {
        let json = #"{"image":"a","deviceClaims":[{"count":0.5}]}"#
        #expect {
            try JSONCoding.decode(ContainerSpec.self, from: Array(json.utf8), strict: true)
        } throws: {
            "\($0)".contains("$.deviceClaims[0].count")
        }
    }

    @Test func claimsChangeInPlaceAndDevicesByNameDoNot() {
        let old = PodSpec(containers: [ContainerSpec(image: "a")])
        var new = old
        new.containers[0].deviceClaims = [DeviceClaim()]
        #expect(new.changesInPlace(from: old))
        new.containers[0].devices = ["vendor.com/class=name"]
        #expect(!new.changesInPlace(from: old))
    }
}

@Suite struct DeviceReports {
    @Test func anOldAgentsTaskAndANewAgentsWordsAreRead() throws {
        let json = #"""
            {"id":"GPU-1","vendor":"nvidia","kind":"gpu","links":[{"to":"GPU-2","kind":"telepathy","amount":3}],
            "health":{"state":"puzzled"},"color":"green"}
            """#
        let device = try JSONCoding.decode(NodeDevice.self, from: Array(json.utf8))
        #expect(device.links == [NodeDevice.Link(to: "GPU-2", .system, amount: 3)])
        #expect(device.health.state == .unusable)
        #expect(device.shares == 1 && !device.isGone && device.aliases.isEmpty)
        let spec = try JSONCoding.decode(ContainerSpec.self, from: Array(#"{"image":"a"}"#.utf8), strict: true)
        #expect(spec.deviceClaims.isEmpty)
    }

    @Test func allOfADeviceComesBack() throws {
        let device = NodeDevice(
            id: "MIG-1", aliases: ["0:1"], vendor: "nvidia", model: "NVIDIA H200", memoryBytes: 18 << 30,
            driverVersion: "550.54.15", runtimeVersion: "12.4", computeCapability: "9.0", numaNode: 1,
            pciAddress: "0000:3b:00.0", parent: "GPU-1", profile: "1g.18gb", isDivided: false,
            links: [.init(to: "GPU-2", .nvlink, amount: 18)], health: .init(.degraded, reasons: ["hot"]), isGone: true,
            shares: 4, heldBy: [TaskID("t")])
        #expect(
            try JSONCoding.decode(NodeDevice.self, from: try JSONCoding.encode(device), strict: true) == device)
        let grant = DeviceGrant(container: "main", claim: 1, devices: ["MIG-1"], sharing: .share)
        #expect(try JSONCoding.decode(DeviceGrant.self, from: try JSONCoding.encode(grant), strict: true) == grant)
    }

    @Test func aReportIsKeptWithinBounds() {
        var wild = NodeDevice(id: "GPU-1", vendor: "nvidia", model: String(repeating: "m", count: 10_000))
        wild.shares = 1_000_000
        wild.memoryBytes = -1
        wild.links = (0..<10_000).map { NodeDevice.Link(to: "GPU-\($0)", .system, amount: -1) }
        wild.health.reasons = Array(repeating: String(repeating: "r", count: 10_000), count: 100)
        wild.heldBy = (0..<10_000).map { TaskID("\($0)") }
        let kept = NodeDevice.bounded([
            wild, NodeDevice(id: "GPU-1", vendor: "amd"), NodeDevice(id: "a\nb", vendor: "nvidia"),
            NodeDevice(id: "", vendor: "nvidia"), NodeDevice(id: "b", vendor: ""),
        ])
        #expect(kept.map(\.id) == ["GPU-1"] && kept[0].vendor == "nvidia")
        #expect(kept[0].shares == NodeDevice.mostShares && kept[0].memoryBytes == 0)
        #expect((kept[0].model?.utf8.count ?? 999) < 200 && kept[0].links.count == 256 && kept[0].heldBy.count == 256)
        #expect(kept[0].health.reasons.count == 16 && kept[0].health.reasons.allSatisfy { $0.utf8.count < 500 })
        #expect(NodeDevice.bounded((0..<5000).map { NodeDevice(id: "\($0)", vendor: "v") }).count == NodeDevice.limit)
    }

    @Test func versionsAreComparedByNumbers() throws {
        func version(_ text: String) throws -> DeviceVersion { try #require(DeviceVersion(text)) }
        #expect(try version("550.9") < version("550.54"))
        #expect(try version("9.0") == version("9"))
        #expect(try version("12.4") < version("12.4.1"))
        for text in ["", "a", "1..2", "1.", "1.2.3.4.5.6.7", "1234567890", "-1"] {
            #expect(DeviceVersion(text) == nil, "\(text)")
        }
    }

    @Test func onlyMemoryOfItsOwnIsScarce() {
        #expect(NodeDevice(id: "a", vendor: "nvidia").isScarce)
        #expect(NodeDevice(id: "a", vendor: "intel", memoryBytes: 16 << 30).isScarce)
        #expect(!NodeDevice(id: "a", vendor: "intel").isScarce)
        #expect(!NodeDevice(id: "a", vendor: "amd", memoryBytes: 512 << 20).isScarce)
        #expect(!NodeDevice(id: "a", vendor: "nvidia", isGone: true).isScarce)
    }
}
