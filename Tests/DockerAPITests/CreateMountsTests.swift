import JSON
import Model
import Testing
import Wire

@testable import DockerAPI

private typealias Fixture = CreateFixture

@Suite struct CreateTranslatesMounts {
    private func mounts(_ members: String) throws -> [Mount] { try Fixture.hostSpec(members).mounts }

    @Test func binds() throws {
        let mounts = try mounts(
            #""Binds":["/a/../b/:/x//y/","data:/d:ro,nocopy","/c:/z:ro,rslave,z","/e:/f:rw,cached"]"#)
        #expect(
            mounts.map(\.source) == [.bind(path: "/b"), .volume(name: "data"), .bind(path: "/c"), .bind(path: "/e")])
        #expect(mounts.map(\.target) == ["/x/y", "/d", "/z", "/f"])
        #expect(mounts.map(\.readOnly) == [false, true, true, false])
        #expect(mounts.map(\.createSource) == [true, false, true, true])
        #expect(mounts[1].copyUp == false)
        #expect(mounts[2].propagation == "rslave")
    }

    @Test(arguments: [
        "", ":", "/a:", "/a:b", "/a:/", "/a:/b:ro:x", "/a:/b:what", "/a:/b:ro,rw", "/a:/b:ro,ro", "/a:/b:nocopy",
        "x:/b",
        "a b:/c", "data:/b:rshared", "rel/path:/x",
    ]) func otherBindsAreRefused(bind: String) {
        let refusal = #expect(throws: DockerError.self) { try mounts(#""Binds":["\#(bind)"]"#) }
        #expect(refusal?.status == 400)
    }

    @Test func oneMountAtAPlace() {
        #expect(throws: DockerError.self) { try mounts(#""Binds":["/a:/x","/b:/x/"]"#) }
        #expect(throws: DockerError.self) { try mounts(#""Binds":["/a:/x"],"Tmpfs":{"/x":""}"#) }
    }

    @Test func mountsWithAllTheirOptions() throws {
        let mounts = try mounts(
            #"""
            "Mounts":[{"Type":"bind","Source":"/a","Target":"/1","ReadOnly":true,"Consistency":"cached",
            "BindOptions":{"Propagation":"shared","NonRecursive":true,"CreateMountpoint":true}},
            {"Type":"volume","Source":"data","Target":"/2","VolumeOptions":{"NoCopy":true,"Subpath":"a/b",
            "DriverConfig":{"Name":"local"}}},{"Type":"volume","Target":"/3"},
            {"Type":"tmpfs","Target":"/4","TmpfsOptions":{"SizeBytes":65536,"Mode":448,"Options":[["noexec"]]}},
            {"Type":"bind","Source":"/b","Target":"/5"}]
            """#)
        #expect(mounts[0].source == .bind(path: "/a") && mounts[0].readOnly && mounts[0].propagation == "shared")
        #expect(!mounts[0].recursive && mounts[0].createSource)
        #expect(mounts[1].source == .volume(name: "data") && !mounts[1].copyUp && mounts[1].subpath == "a/b")
        #expect(mounts[2].isAnonymous)
        #expect(mounts[3].source == .tmpfs(size: 65536, mode: "0700") && mounts[3].options == ["noexec"])
        #expect(mounts[4].recursive && !mounts[4].createSource)
    }

    @Test(arguments: [
        #"{"Type":"image","Source":"x","Target":"/a"}"#, #"{"Type":"npipe","Source":"x","Target":"/a"}"#,
        #"{"Type":"cluster","Source":"x","Target":"/a"}"#, #"{"Type":"what","Target":"/a"}"#,
        #"{"Type":"bind","Source":"a","Target":"/a"}"#, #"{"Type":"bind","Source":"/a","Target":"a"}"#,
        #"{"Type":"tmpfs","Source":"a","Target":"/a"}"#, #"{"Type":"volume","Target":"/a","BindOptions":{}}"#,
        #"{"Type":"volume","Source":"v1","Target":"/a","VolumeOptions":{"DriverConfig":{"Name":"nfs"}}}"#,
        #"{"Type":"tmpfs","Target":"/a","TmpfsOptions":{"Options":[["uid","5"]]}}"#,
        #"{"Type":"bind","Source":"/a","Target":"/a","BindOptions":{"Propagation":"what"}}"#,
    ]) func otherMountsAreRefused(mount: String) {
        let refusal = #expect(throws: DockerError.self) { try mounts(#""Mounts":[\#(mount)]"#) }
        #expect(refusal?.status == 400)
    }

    @Test func memory() throws {
        let mounts = try mounts(#""Tmpfs":{"/run":"rw,noexec,size=64k,mode=700","/tmp":""}"#)
        #expect(mounts.map(\.source) == [.tmpfs(size: 65536, mode: "700"), .tmpfs(size: nil, mode: nil)])
        #expect(mounts.map(\.options) == [["noexec"], []])
    }

    @Test func othersVolumesComeAlongAndTheirContainerIsNear() throws {
        var other = Fixture.view(
            try Fixture.create(#""Volumes":{"/anon":{}},"HostConfig":{"Binds":["/a:/x","v1:/y"],"Tmpfs":{"/t":""}}"#),
            name: "other")
        other.name = "other"
        let wish = try Fixture.create(
            #""HostConfig":{"VolumesFrom":["other:ro"],"Binds":["/own:/x"]}"#, others: ["other": other])
        let mounts = wish.pod.containers[0].mounts
        #expect(mounts.map(\.target) == ["/x", "/y", "/anon"])
        #expect(mounts.map(\.readOnly) == [false, true, true])
        #expect(mounts[0].source == .bind(path: "/own"))
        #expect(mounts.allSatisfy { !$0.isAnonymous }, "they are not this container's to remove")
        #expect(wish.pod.affinities.map(\.description) == ["container==\(other.id)"])
    }
}

@Suite struct CreateTranslatesNetworks {
    private func pod(_ host: String, endpoints: String = "{}", others: [String: ContainerView] = [:]) throws -> PodSpec
    {
        try Fixture.create(
            #""HostConfig":{\#(host)},"NetworkingConfig":{"EndpointsConfig":\#(endpoints)}"#, others: others
        ).pod
    }

    @Test func modes() throws {
        for mode in ["", "default", "bridge"] {
            let pod = try pod(#""NetworkMode":"\#(mode)""#, endpoints: #"{"default":{},"bridge":null}"#)
            #expect(pod.network == .bridge && pod.attachments == [])
        }
        #expect(try pod(#""NetworkMode":"host""#).network == .host)
        #expect(try pod(#""NetworkMode":"none""#, endpoints: #"{"none":{}}"#).network == .none)
        #expect(try Fixture.create(#""NetworkDisabled":true"#).pod.network == .none)
        let shared = try pod(#""NetworkMode":"container:db""#)
        #expect(shared.network == .container && shared.namespaces.network == .container("db"))
    }

    @Test func networksOfUsers() throws {
        let one = try pod(
            #""NetworkMode":"n1""#,
            endpoints:
                #"{"n1":{"Aliases":["al"],"IPAMConfig":{"IPv4Address":"172.20.0.9"},"MacAddress":"02:42:ac:14:00:09"}}"#
        )
        #expect(one.network == .attached)
        #expect(
            one.attachments == [
                NetworkAttachment(network: "n1", aliases: ["al"], address: "172.20.0.9", mac: "02:42:ac:14:00:09")
            ])
        let several = try pod(#""NetworkMode":"n2""#, endpoints: #"{"n1":{},"n3":{"GwPriority":1}}"#)
        #expect(several.attachments.map(\.network) == ["n3", "n2", "n1"])
        #expect(try pod("", endpoints: #"{"n1":{}}"#).network == .attached)
        let beside = try pod(#""NetworkMode":"bridge""#, endpoints: #"{"n1":{}}"#)
        #expect(beside.network == .bridge && beside.attachments.map(\.network) == ["n1"])
        let mac = try Fixture.create(
            #""MacAddress":"02:42:ac:14:00:09","HostConfig":{"NetworkMode":"n1"}"#, version: APIVersion(minor: 51))
        #expect(mac.pod.attachments[0].mac == "02:42:ac:14:00:09")
    }

    @Test(arguments: [
        (#""NetworkMode":"host""#, #"{"n1":{}}"#), (#""NetworkMode":"none""#, #"{"n1":{}}"#),
        (#""NetworkMode":"container:x","PortBindings":{"80/tcp":[{"HostPort":"80"}]}"#, "{}"),
        (#""NetworkMode":"container:x","Dns":["1.1.1.1"]"#, "{}"), (#""NetworkMode":"container:x""#, #"{"n1":{}}"#),
        ("", #"{"bridge":{"Aliases":["a"]}}"#), ("", #"{"default":{"IPAMConfig":{"IPv4Address":"1.2.3.4"}}}"#),
        ("", #"{"default":{"MacAddress":"02:42:ac:14:00:09"}}"#), (#""Links":["db:db"]"#, "{}"),
        (#""PortBindings":{"0/tcp":[]}"#, "{}"), (#""PortBindings":{"80/icmp":[]}"#, "{}"),
        (#""PortBindings":{"80-90/tcp":[]}"#, "{}"), (#""PortBindings":{"80/tcp":[{"HostPort":"x"}]}"#, "{}"),
    ]) func whatDoesNotGoTogetherIsRefused(host: String, endpoints: String) {
        let refusal = #expect(throws: DockerError.self) { try pod(host, endpoints: endpoints) }
        #expect(refusal?.status == 400)
    }

    @Test func linksAreNamesOnANetwork() throws {
        let other = Fixture.view(try Fixture.create(#""HostConfig":{"NetworkMode":"n1"}"#), name: "db")
        for (link, name) in [("db", "db"), ("db:db", "db"), ("/db:database", "database")] {
            let pod = try pod(#""NetworkMode":"n1","Links":["\#(link)"]"#, others: ["db": other])
            #expect(pod.affinities.map(\.value) == [other.id.text])
            #expect(pod.attachments[0].links == [name: other.id.text])
        }
        let both = try pod(
            #""NetworkMode":"n1""#, endpoints: #"{"n1":{"Links":["db:a","db:b"]},"n2":{}}"#, others: ["db": other])
        #expect(both.attachments.map(\.links) == [["a": other.id.text, "b": other.id.text], [:]])
        let refusal = #expect(throws: DockerError.self) { try pod(#""Links":["db:else"]"#, others: ["db": other]) }
        #expect(refusal?.message.contains("docker network create") == true)
    }

    @Test func ports() throws {
        let wish = try Fixture.create(
            #"""
            "ExposedPorts":{"90/tcp":{}},"HostConfig":{"PortBindings":{"80/tcp":[{"HostIp":"0.0.0.0","HostPort":"8080"},
            {"HostIp":"127.0.0.1","HostPort":""}],"53/udp":[{"HostPort":"5300-5310"}],"7":null}}
            """#)
        #expect(
            wish.pod.ports == [
                PortMapping(hostPort: 0, containerPort: 7),
                PortMapping(hostPort: 5300, hostPortEnd: 5310, containerPort: 53, transport: .udp),
                PortMapping(hostAddress: "127.0.0.1", hostPort: 0, containerPort: 80),
                PortMapping(hostAddress: "0.0.0.0", hostPort: 8080, containerPort: 80),
            ])
        #expect(wish.pod.containers[0].exposedPorts == ["7/tcp", "53/udp", "80/tcp", "90/tcp"])
        let six = try Fixture.create(
            #"""
            "HostConfig":{"PortBindings":{"80/tcp":[{"HostIp":"::","HostPort":"8080"},
            {"HostIp":"2001:db8::5","HostPort":"8081"},{"HostPort":"8082"}]}}
            """#)
        #expect(six.pod.ports.map(\.hostAddress) == ["::", "2001:db8::5", ""])
    }

    @Test func aPublishedPortIsShownInEachFamilyThatItIsIn() {
        func places(_ address: String, node: String? = nil, hasV6: Bool = true) -> [String] {
            PublishedPlaces.of(
                PortMapping(hostAddress: address, hostPort: 1, containerPort: 1), node: node, hasV6: hasV6)
        }
        #expect(places("") == ["0.0.0.0", "::"] && places("", hasV6: false) == ["0.0.0.0"])
        #expect(places("0.0.0.0") == ["0.0.0.0"] && places("::") == ["::"])
        #expect(places("", node: "192.0.2.1") == ["192.0.2.1"] && places("0.0.0.0", node: "192.0.2.1") == ["192.0.2.1"])
        #expect(places("2001:db8::5", node: "192.0.2.1") == ["2001:db8::5"])
    }

    @Test func allPortsArePublishedOnce() throws {
        let wish = try Fixture.host(
            #""PublishAllPorts":true,"PortBindings":{"80/tcp":[{"HostPort":"8080"}]}"#,
            image: Fixture.image { $0.exposedPorts = ["80/tcp", "100-101/udp"] })
        #expect(
            wish.pod.ports == [
                PortMapping(hostPort: 8080, containerPort: 80),
                PortMapping(hostPort: 0, containerPort: 100, transport: .udp),
                PortMapping(hostPort: 0, containerPort: 101, transport: .udp),
            ])
    }

    @Test func portsOfTheNodesNetworkAreDiscardedAloud() throws {
        var translation = CreateTranslation(
            try Fixture.request(
                #""HostConfig":{"NetworkMode":"host","PortBindings":{"80/tcp":[{"HostPort":"80"}]}}"#),
            image: Fixture.image())
        #expect(try translation.translate().pod.ports == [])
        #expect(translation.warnings == ["Published ports are discarded when using host network mode"])
    }

    @Test func expressionsOfSwarmBecomeConstraints() throws {
        let wish = try Fixture.create(#""Env":["constraint:zone==b","affinity:container==~db","A=1"]"#)
        #expect(wish.pod.constraints.map(\.description) == ["zone==b"])
        #expect(wish.pod.affinities.map(\.description) == ["container==~db"])
        #expect(wish.pod.containers[0].environment == ["A=1"])
        #expect(wish.labels["com.docker.swarm.constraints"] == #"["zone==b"]"#)
    }
}
