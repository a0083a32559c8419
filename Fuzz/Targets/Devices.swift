import CDI
import CDISpec
import JSON
import OCISpec

extension FuzzTarget {
    /// Specifications of devices, as JSON and as YAML.
    static let cdi = FuzzTarget(
        name: "cdi", longest: 4096,
        seeds: {
            [
                #"""
                {"cdiVersion":"1.1.0","kind":"vendor.com/class","annotations":{"a/b":"c"},"devices":[{"name":"0","annotations":
                {"d":"e"},"containerEdits":{"env":["A=b"],"deviceNodes":[{"path":"/dev/x","hostPath":"/dev/y","type":"c",
                "major":195,"minor":1,"fileMode":432,"permissions":"rw","uid":1,"gid":2}],"netDevices":[{"hostInterfaceName":
                "eth1","name":"net0"}],"mounts":[{"hostPath":"/a","containerPath":"/b/../c","type":"none","options":["rbind"]}],
                "hooks":[{"hookName":"createContainer","path":"/h","args":["h"],"env":["A=b"],"timeout":3}],"intelRdt":
                {"closID":"c","l3CacheSchema":"L3:0=f","memBwSchema":"MB:0=20","schemata":["L2:0=3"],"enableMonitoring":true},
                "additionalGids":[5]}}],"containerEdits":{"env":["B=c"]}}
                """#,
                """
                ---
                cdiVersion: 0.6.0
                kind: "vendor.com/class"
                containerEdits: &all
                  env:
                  - A=b
                devices:
                - name: 0
                  containerEdits: *all
                - {name: b, containerEdits: {deviceNodes: [{path: /dev/x, fileMode: 0660, major: 0x1F}]}}
                """,
                "vendor.com/class=0:1",
            ].map(bytes)
        }
    ) { input in
        let text = String(decoding: input, as: UTF8.self)
        if let name = CDIName(text) {
            expect(name.description == text, "a device's name has one spelling")
            expect(text.utf8.first != UInt8(ascii: "/"), "a path is no device's name")
        }
        for isYAML in [false, true] {
            let read: CDISpecification
            do {
                read = try CDIFile.parse(input, isYAML: isYAML)
            } catch {
                expectSentence(error)
                continue
            }
            expect((try? CDISpecification.parse(read.encoded())) == read, "what is written is read again")
            expect(read.minimumVersion <= read.version, "nothing is in it that came later")
            for device in read.devices {
                let name = read.name(of: device)
                expect(CDIName(name.description) == name, "a device can be asked for by its name")
                expectEdits(read.edits, device.edits)
            }
        }
    }

    /// What is edited is a configuration that can be written, and what is edited twice is edited once.
    private static func expectEdits(_ all: CDIEdits, _ own: CDIEdits) {
        var edits = all
        edits.append(own)
        var spec = ContainerSpec()
        spec.process = ProcessSpec(args: ["a"])
        spec.process?.env = ["A=1", "PATH=/bin"]
        spec.mounts = [MountSpec(destination: "/proc"), MountSpec(destination: "/dev/shm")]
        let host = CDIHostNode(.character, major: 1, minor: 3, mode: 0o666)
        do {
            try edits.apply(to: &spec) { _ in host }
        } catch {
            return expectSentence(error)
        }
        expect((try? ContainerSpec(parsing: spec.encoded())) == spec, "what is edited is read as it is written")
        for device in spec.linux?.devices ?? [] {
            expect(device.path.utf8.first == UInt8(ascii: "/"), "a device is absolute")
        }
        for mount in spec.mounts {
            expect(mount.destination.utf8.first == UInt8(ascii: "/"), "a mount point is absolute")
        }
        expect(
            Set(spec.process?.env.map { Array($0.utf8.prefix { $0 != 61 }) } ?? []).count == spec.process?.env.count,
            "variables are set once")
    }
}
