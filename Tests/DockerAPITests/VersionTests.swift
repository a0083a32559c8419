import Client
import JSON
import MasterCore
import Model
import NIOCore
import NIOHTTP1
import Testing
import Wire

@testable import DockerAPI

private typealias Fixture = CreateFixture

/// What is told otherwise from a version on, at both sides of it.
@Suite struct AnswersHaveTheShapeOfTheirVersion {
    private static func keys(_ value: JSONValue?) -> Set<String> {
        Set((value?.objectValue?.members ?? []).map(\.key))
    }

    /// - Returns: members that are gone in the second version, and those that came with it.
    private func difference(
        _ versions: (Int, Int), of value: (APIVersion) throws -> JSONValue?
    ) rethrows -> (gone: Set<String>, new: Set<String>) {
        let before = Self.keys(try value(APIVersion(minor: versions.0)))
        let after = Self.keys(try value(APIVersion(minor: versions.1)))
        return (before.subtracting(after), after.subtracting(before))
    }

    // MARK: Containers

    @Test func anInspectedContainer() throws {
        let wish = try Fixture.create(
            #""HostConfig":{"NetworkMode":"n1"},"NetworkingConfig":{"EndpointsConfig":{"n1":{"MacAddress":"02:00:00:00:00:01"}}}"#
        )
        func inspect(_ version: APIVersion) -> JSONValue {
            ContainerInspect(view: Fixture.view(wish), version: version).json
        }
        let settings = difference((51, 52)) { inspect($0)["NetworkSettings"] }
        #expect(
            settings.gone == [
                "Bridge", "HairpinMode", "LinkLocalIPv6Address", "LinkLocalIPv6PrefixLen", "SecondaryIPAddresses",
                "SecondaryIPv6Addresses", "EndpointID", "Gateway", "GlobalIPv6Address", "GlobalIPv6PrefixLen",
                "IPAddress", "IPPrefixLen", "IPv6Gateway", "MacAddress",
            ])
        #expect(settings.new.isEmpty)
        let config = difference((51, 52)) { inspect($0)["Config"] }
        #expect(config.gone == ["OnBuild", "MacAddress"] && config.new.isEmpty)
        let host = difference((51, 52)) { inspect($0)["HostConfig"] }
        #expect(host.gone == ["KernelMemoryTCP"] && host.new.isEmpty)
    }

    @Test func aListedContainer() async throws {
        try await DockerBench.run { bench in
            _ = try await PlayedNode(bench)
            try await bench.create("web")
            #expect(try await bench.list(version: "/v1.51").first?["Health"] == nil)
            #expect(
                try await bench.list(version: "/v1.52").first?["Health"] == ["Status": "none", "FailingStreak": 0])
        }
    }

    @Test func figuresOfAContainer() throws {
        let view = Fixture.view(try Fixture.create())
        func text(_ version: APIVersion) throws -> JSONValue {
            var text = StatsText(view, Resources(), version).write(nil, after: nil)
            return try JSONValue.parse(text.readBytes(length: text.readableBytes) ?? [])
        }
        #expect(try text(APIVersion(minor: 51))["os_type"] == nil)
        #expect(try text(APIVersion(minor: 52))["os_type"] == "linux")
    }

    @Test func emptyBindingsAreAnyPortAndWarnedOf() throws {
        var translation = CreateTranslation(
            try Fixture.request(#""HostConfig":{"PortBindings":{"80/tcp":[],"81/tcp":null}}"#),
            image: Fixture.image())
        let pod = try translation.translate().pod
        #expect(pod.ports.map(\.containerPort) == [80, 81] && pod.ports.allSatisfy { $0.hostPort == 0 })
        #expect(translation.emptyBindings.count == 2 && translation.warnings.isEmpty)
    }

    // MARK: Images

    @Test func anImagesConfiguration() {
        let plain = Fixture.image { $0.command = [] }
        func config(_ version: APIVersion) -> JSONValue { DockerAPI.config(plain, version) }
        #expect(
            difference((49, 50), of: config).gone == [
                "Hostname", "Domainname", "Image", "AttachStdin", "AttachStdout", "AttachStderr", "Tty", "OpenStdin",
                "StdinOnce",
            ])
        #expect(
            difference((51, 52), of: config).gone == [
                "Cmd", "Entrypoint", "Env", "Labels", "OnBuild", "User", "Volumes", "WorkingDir",
            ])
        let full = Fixture.image {
            $0.user = "1"
            $0.environment = ["A=1"]
        }
        let keys = Self.keys(DockerAPI.config(full, .newest))
        #expect(keys == ["Cmd", "User", "Env"])
    }

    @Test func listedImagesAndWhatIsSaidOfThem() async throws {
        try await DockerBench.run { bench in
            _ = try await PlayedNode(bench)
            try await bench.create("web")
            func ask(_ path: String) async throws -> DockerBench.Answer { try await bench.ask(.GET, path) }
            func users(_ version: Int) async throws -> JSONValue? {
                try await ask("/v1.\(version)/images/json").json?.arrayValue?.first?["Containers"]
            }
            #expect(try await users(50) == -1)
            #expect(try await users(51) == 1)
            #expect(try await ask("/v1.53/images/json?identity=1").status == 200)
            #expect(try await ask("/v1.54/images/json?identity=1").status == 400)
            #expect(try await ask("/v1.54/images/json?identity=1&manifests=1").status == 200)
            // As a name of an image, which only removal takes without a word behind it.
            #expect(try await ask("/v1.54/images/web/attestations").status == 405)
            let none = try await ask("/v1.55/images/web/attestations?type=x&statement=1")
            #expect(none.status == 200 && none.json == [])
            #expect(try await ask("/v1.55/images/nosuch/attestations").status == 404)
        }
    }

    @Test func platformsOfAnImage() async throws {
        try await DockerBench.run { bench in
            _ = try await PlayedNode(bench)
            let own = "platform=" + PercentEncoding.encode(#"{"os":"linux","architecture":"amd64"}"#)
            let other = "platform=" + PercentEncoding.encode(#"{"os":"linux","architecture":"riscv64"}"#)
            func save(_ version: Int, _ query: String) async throws -> Int {
                try await bench.ask(.GET, "/v1.\(version)/images/get?names=web&\(query)").status
            }
            // 503: it is the node's turn, and this one has no ears.
            #expect(try await save(47, other) == 503)
            #expect(try await save(48, other) == 404)
            #expect(try await save(48, "platform=amd64") == 400)
            #expect(try await save(48, own) == 503)
            #expect(try await save(51, "\(own)&\(own)") == 400)
            #expect(try await save(52, "\(own)&\(own)") == 503)
            #expect(try await save(52, "\(own)&\(other)") == 404)
            let refused = try await bench.ask(.POST, "/images/load?\(other)")
            #expect(refused.status == 400 && refused.message.hasPrefix("platform=linux/riscv64 is not supported: "))
            #expect(try await bench.ask(.POST, "/images/load?\(own)").status == 503)
            #expect(try await bench.ask(.GET, "/v1.55/images/web/attestations?\(own)&\(own)").status == 400)
            #expect(try await bench.ask(.GET, "/v1.55/images/web/attestations?\(other)").status == 404)
        }
    }

    // MARK: Networks

    @Test func whatIsTakenOfANetwork() async throws {
        try await DockerBench.run { bench in
            _ = try await PlayedNode(bench)
            let body = """
                {"Name":"n1","IPAM":{"Config":[{"Subnet":"10.77.0.0/24","Gateway":"10.77.0.1","IPRange":"10.77.0.0/28",
                "AuxiliaryAddresses":{"router":"10.77.0.9","far":"10.77.0.200"}}]}}
                """
            #expect(try await bench.ask(.POST, "/networks/create", body: body).status == 201)
            #expect(try await bench.ask(.GET, "/v1.51/networks/n1").json?["Status"] == nil)
            #expect(
                try await bench.ask(.GET, "/v1.52/networks/n1").json?["Status"] == [
                    "IPAM": ["Subnets": ["10.77.0.0/24": ["IPsInUse": 5, "DynamicIPsAvailable": 13]]]
                ])
            #expect(try await bench.ask(.GET, "/v1.52/networks/host").json?["Status"] == ["IPAM": ["Subnets": [:]]])
            for network in try await bench.ask(.GET, "/v1.52/networks").json?.arrayValue ?? [] {
                #expect(network["Status"] == nil)
            }
        }
    }

    // MARK: The whole

    @Test func whatIsUsed() async throws {
        try await DockerBench.run { bench in
            _ = try await PlayedNode(bench)
            try await bench.create("web")
            func usage(_ version: Int, _ query: String = "") async throws -> JSONValue? {
                try await bench.ask(.GET, "/v1.\(version)/system/df?type=image&type=build-cache\(query)").json
            }
            let old: Set = ["LayersSize", "Images", "BuildCache"]
            let new: Set = ["ImageUsage", "BuildCacheUsage"]
            #expect(Self.keys(try await usage(41)) == old.union(["BuilderSize"]))
            #expect(Self.keys(try await usage(51)) == old)
            #expect(Self.keys(try await usage(51, "&verbose=1")) == old)
            #expect(Self.keys(try await usage(52)) == old.union(new))
            #expect(Self.keys(try await usage(52, "&verbose=1")) == new)
            #expect(Self.keys(try await usage(53)) == old.union(new))
            #expect(Self.keys(try await usage(56, "&verbose=1")) == new)
            #expect(
                try await usage(53)?["ImageUsage"] == [
                    "ActiveCount": 1, "TotalCount": 1, "Reclaimable": 0, "TotalSize": 1000,
                ])
            let images = try await usage(53, "&verbose=1")?["ImageUsage"]?["Items"]?.arrayValue
            #expect(images?.count == 1 && images?.first?["Containers"] == 1)
            #expect(try await bench.ask(.GET, "/system/df?type=nonsense").status == 400)
        }
    }

    @Test func theEngine() async throws {
        try await DockerBench.run { bench in
            _ = try await PlayedNode(bench)
            let before = Self.keys(try await bench.ask(.GET, "/v1.51/info").json)
            let after = Self.keys(try await bench.ask(.GET, "/v1.52/info").json)
            #expect(before.subtracting(after) == ["KernelMemoryTCP"] && after.isSubset(of: before))
            #expect(try await bench.ask(.GET, "/v1.56/version").json?["ApiVersion"] == "1.56")
            #expect(try await bench.ask(.GET, "/v1.57/version").status == 400)
            #expect(try await bench.ask(.GET, "/v1.23/version").status == 400)
        }
    }
}
