import JSON
import OCISpec
import Testing

@testable import CDISpec

/// What edits make of a container's configuration. `KernelTests` compares the same with podman.
@Suite struct CDIApplyingTests {
    private static let host: [String: CDIHostNode] = [
        "/dev/x": CDIHostNode(.character, major: 195, minor: 3, mode: 0o660),
        "/dev/disk": CDIHostNode(.block, major: 8, minor: 1, mode: 0o600),
        "/dev/pipe": CDIHostNode(.fifo, major: 0, minor: 0, mode: 0o644),
    ]

    private func apply(_ edits: CDIEdits, to spec: ContainerSpec = Self.container) throws -> ContainerSpec {
        var spec = spec
        try edits.apply(to: &spec) { (path) throws(CDIError) in
            guard let node = Self.host[path] else { throw CDIError("\(path) is not there") }
            return node
        }
        return spec
    }

    private static var container: ContainerSpec {
        var spec = ContainerSpec()
        spec.process = ProcessSpec(args: ["a"])
        spec.process?.env = ["PATH=/bin", "A=1", "B=2"]
        return spec
    }

    @Test func `a variable takes the place of one with its name, the others come behind`() throws {
        let spec = try apply(CDIEdits(env: ["B=3", "C=4", "C=5", "A="]))
        #expect(spec.process?.env == ["PATH=/bin", "A=", "B=3", "C=5"])
    }

    @Test(arguments: [
        // What is not said is the host's.
        (
            CDIDeviceNode(path: "/dev/x"),
            DeviceSpec(path: "/dev/x", type: .character, major: 195, minor: 3, fileMode: 0o660)
        ),
        (
            CDIDeviceNode(path: "/dev/in", hostPath: "/dev/disk"),
            DeviceSpec(path: "/dev/in", type: .block, major: 8, minor: 1, fileMode: 0o600)
        ),
        (
            CDIDeviceNode(path: "/dev/x", type: .character, minor: 7, fileMode: 0o600),
            DeviceSpec(path: "/dev/x", type: .character, major: 195, minor: 3, fileMode: 0o600)
        ),
        // Without a type the host's node is looked at, but the numbers that are said stay.
        (
            CDIDeviceNode(path: "/dev/x", major: 10, minor: 7),
            DeviceSpec(path: "/dev/x", type: .character, major: 10, minor: 7, fileMode: 0o660)
        ),
        // All is said: the host's node gives the mode only, and need not be there.
        (
            CDIDeviceNode(path: "/dev/x", type: .block, major: 10, minor: 7),
            DeviceSpec(path: "/dev/x", type: .block, major: 10, minor: 7, fileMode: 0o660)
        ),
        (
            CDIDeviceNode(path: "/dev/none", type: .character, major: 10),
            DeviceSpec(path: "/dev/none", type: .character, major: 10, minor: 0)
        ),
        (CDIDeviceNode(path: "/dev/none", type: .fifo), DeviceSpec(path: "/dev/none", type: .fifo, major: 0, minor: 0)),
        (
            CDIDeviceNode(path: "/dev/pipe", uid: 5, gid: 6),
            DeviceSpec(path: "/dev/pipe", type: .fifo, major: 0, minor: 0, fileMode: 0o644, uid: 5, gid: 6)
        ),
    ])
    func `a device node is completed from the host's`(node: CDIDeviceNode, device: DeviceSpec) throws {
        let spec = try apply(CDIEdits(deviceNodes: [node]))
        #expect(spec.linux?.devices == [device])
    }

    @Test(arguments: [
        (CDIDeviceNode(path: "/dev/none"), "/dev/none is not there"),
        (CDIDeviceNode(path: "/dev/in", hostPath: "/dev/none", type: .block), "/dev/none is not there"),
        (
            CDIDeviceNode(path: "/dev/x", type: .block),
            "the device node /dev/x is to be of type b, and /dev/x of this host is c"
        ),
        (
            CDIDeviceNode(path: "/dev/x", type: .unbuffered),
            "the device node /dev/x is to be of type u, and /dev/x of this host is c"
        ),
    ])
    func `a device node that the host does not have is refused by its name`(node: CDIDeviceNode, reason: String) throws
    {
        let error = #expect(throws: CDIError.self) { try apply(CDIEdits(deviceNodes: [node])) }
        #expect(error?.description == reason)
    }

    @Test func `each node gets a rule with its rights, and takes the place of one at its path`() throws {
        var spec = Self.container
        spec.linux = LinuxSpec()
        spec.linux?.devices = [
            DeviceSpec(path: "/dev/x", type: .character, major: 1, minor: 3),
            DeviceSpec(path: "/dev/other", type: .character, major: 1, minor: 5),
        ]
        spec.linux?.resources = ResourcesSpec()
        spec.linux?.resources?.devices = [DeviceRuleSpec(allow: false, access: "rwm")]
        spec = try apply(
            CDIEdits(deviceNodes: [
                CDIDeviceNode(path: "/dev/x"), CDIDeviceNode(path: "/dev/disk", permissions: "rw"),
                CDIDeviceNode(path: "/dev/pipe"), CDIDeviceNode(path: "/dev/u", type: .unbuffered, major: 9),
                CDIDeviceNode(path: "/dev/n", hostPath: "/dev/x", permissions: "none"),
            ]), to: spec)
        #expect(
            spec.linux?.devices.map(\.path) == ["/dev/other", "/dev/x", "/dev/disk", "/dev/pipe", "/dev/u", "/dev/n"])
        #expect(
            spec.linux?.resources?.devices == [
                DeviceRuleSpec(allow: false, access: "rwm"),
                DeviceRuleSpec(allow: true, type: "c", major: 195, minor: 3, access: "rwm"),
                DeviceRuleSpec(allow: true, type: "b", major: 8, minor: 1, access: "rw"),
                DeviceRuleSpec(allow: true, type: "c", major: 195, minor: 3, access: ""),
            ])
    }

    @Test func `a node belongs to the container's user unless it is said otherwise`() throws {
        var spec = Self.container
        spec.process?.user = UserSpec(uid: 1000, gid: 100)
        spec = try apply(
            CDIEdits(deviceNodes: [CDIDeviceNode(path: "/dev/x"), CDIDeviceNode(path: "/dev/disk", uid: 0, gid: 6)]),
            to: spec)
        #expect(spec.linux?.devices.map(\.uid) == [1000, 0] && spec.linux?.devices.map(\.gid) == [100, 6])
    }

    @Test func `a mount takes the place of one at its path, and deeper ones come behind`() throws {
        var spec = Self.container
        spec.mounts = [
            MountSpec(destination: "/proc", type: "proc", source: "proc"),
            MountSpec(destination: "/a/b", source: "/old"),
            MountSpec(destination: "/a/b/c"), MountSpec(destination: "/z"),
        ]
        spec = try apply(
            CDIEdits(mounts: [
                CDIMount(hostPath: "/new", containerPath: "/a/b", options: ["ro", "bind"]),
                CDIMount(hostPath: "/q", containerPath: "/q/../y/.//", type: "none", options: ["rbind"]),
            ]), to: spec)
        #expect(spec.mounts.map(\.destination) == ["/proc", "/z", "/q/../y/.//", "/a/b", "/a/b/c"])
        #expect(spec.mounts[3] == MountSpec(destination: "/a/b", source: "/new", options: ["ro", "bind"]))
        #expect(spec.mounts[2] == MountSpec(destination: "/q/../y/.//", type: "none", source: "/q", options: ["rbind"]))
    }

    @Test(
        arguments: [
            (nil, ["ro", "bind"], ["ro", "bind", "idmap"]), (nil, ["rbind"], ["rbind", "ridmap"]),
            ("bind", [], ["idmap"]), (nil, ["bind", "ridmap"], ["bind", "ridmap"]), ("tmpfs", ["ro"], ["ro"]),
        ] as [(String?, [String], [String])])
    func `in a user namespace a bind mount is id-mapped`(type: String?, options: [String], wanted: [String]) throws {
        var spec = Self.container
        spec.linux = LinuxSpec()
        spec.linux?.namespaces = [NamespaceSpec(.user)]
        let edits = CDIEdits(mounts: [CDIMount(hostPath: "/a", containerPath: "/b", type: type, options: options)])
        #expect(try apply(edits, to: spec).mounts.map(\.options) == [wanted])
        #expect(try apply(edits).mounts.map(\.options) == [options])
    }

    @Test func `hooks come behind those that are there, each in its list`() throws {
        var spec = Self.container
        spec.hooks = HooksSpec()
        spec.hooks?.poststop = [HookSpec(path: "/first")]
        let hooks = CDIHook.Point.allCases.map { CDIHook($0, HookSpec(path: "/\($0.rawValue)", timeout: 2)) }
        let all = try #require(try apply(CDIEdits(hooks: hooks), to: spec).hooks)
        #expect(all.prestart.map(\.path) == ["/prestart"] && all.createRuntime.map(\.path) == ["/createRuntime"])
        #expect(all.createContainer.map(\.path) == ["/createContainer"])
        #expect(all.startContainer == [HookSpec(path: "/startContainer", timeout: 2)])
        #expect(all.poststart.map(\.path) == ["/poststart"] && all.poststop.map(\.path) == ["/first", "/poststop"])
    }

    @Test func `groups are added once and never the root's, links and a class of service are set`() throws {
        var spec = Self.container
        spec.process?.user.additionalGids = [5]
        spec.linux = LinuxSpec()
        spec.linux?.netDevices = ["eth1": NetDeviceSpec(name: "old"), "eth2": NetDeviceSpec()]
        var edits = CDIEdits(
            netDevices: [CDINetDevice(hostInterfaceName: "eth1", name: "net0")],
            intelRdt: IntelRdtSpec(closID: "first"), additionalGids: [0, 7, 5, 7])
        edits.append(CDIEdits(intelRdt: IntelRdtSpec(closID: "second", schemata: ["L2:0=3"]), additionalGids: [8]))
        edits.append(CDIEdits(env: ["A=b"]))
        spec = try apply(edits, to: spec)
        #expect(spec.process?.user.additionalGids == [5, 7, 8])
        #expect(spec.linux?.netDevices == ["eth1": NetDeviceSpec(name: "net0"), "eth2": NetDeviceSpec()])
        #expect(spec.linux?.intelRdt == IntelRdtSpec(closID: "second", schemata: ["L2:0=3"]))
    }

    @Test func `no edits change nothing`() throws {
        #expect(try apply(CDIEdits()) == Self.container)
    }
}
