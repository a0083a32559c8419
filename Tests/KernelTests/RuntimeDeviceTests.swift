import JSON
import Kernel
import OCISpec
import Testing

/// Whether a driver of this machine answers to NVIDIA's major: an open of its nodes would say something else then.
private let isMajorTaken = (try? File.text("/proc/devices"))?.contains("195 ") == true

extension KernelSuite {
    /// Which devices a container can open, whoever makes their nodes. No driver answers to the nodes' numbers: an open that
    /// the rules let through says ENXIO, another one EPERM.
    @Suite(.serialized, .enabled(if: !isMajorTaken, "a driver of this machine answers to the major 195"))
    struct RuntimeDevices {
        private static let allowed = "No such device or address"
        private static let denied = "Operation not permitted"

        /// Makes nodes of two devices below /dev, where no mount option is in the way, and tells what becomes of opening each
        /// for reading and for writing.
        ///
        /// - Parameter name: what the names of the nodes begin with.
        private static func probe(_ name: String) -> String {
            """
            for minor in 0 1; do
              node=/dev/\(name)$minor
              mknod $node c 195 $minor || echo there is no node
              reading=$( (: <$node) 2>&1 )
              writing=$( (: >$node) 2>&1 )
              echo "$minor: ${reading##*: }, ${writing##*: }"
            done
            """
        }

        /// What the probe tells where one of both devices may be used.
        private static func only(_ minor: Int64) -> [String] {
            [Int64(0), 1].map { $0 == minor ? "\($0): \(allowed), \(allowed)" : "\($0): \(denied), \(denied)" }
        }

        /// One of both devices, and what every container may use.
        private static func resources(_ minor: Int64) -> ResourcesSpec {
            var resources = ResourcesSpec()
            resources.devices = [
                DeviceRuleSpec(allow: false, access: "rwm"),
                DeviceRuleSpec(allow: true, type: "c", major: 195, minor: minor, access: "rw"),
            ]
            return resources
        }

        @Test func `a container, exec and a successor use what the rules name, by nodes of their own`() throws {
            let fixture = try RuntimeFixture()
            // It gets its name when it is whole.
            let script = "(\(Self.probe("own"))) > /tmp/new; mv /tmp/new /tmp/seen; sleep 1000"
            let bundle = try fixture.bundle(script) { spec in
                spec.linux?.resources = Self.resources(0)
                spec.process?.capabilities?.bounding.append("CAP_MKNOD")
                spec.process?.capabilities?.effective.append("CAP_MKNOD")
                spec.process?.capabilities?.permitted.append("CAP_MKNOD")
            }
            let seen = "\(bundle)/rootfs/tmp/seen"
            func start() throws {
                try fixture.must("create", "--bundle", bundle, "c1")
                try fixture.must("start", "c1")
            }
            /// What the container's own program has found.
            func found() throws -> [String] {
                // For each open of such a device the kernel looks for a driver, which takes long where it is emulated.
                for _ in 0..<6 where !File.exists(seen) { fixture.eventually { File.exists(seen) } }
                return try File.text(seen).split(separator: "\n").map { String($0) }
            }
            func executed(_ name: String) throws -> [String] {
                try fixture.must("exec", "c1", "sh", "-c", Self.probe(name)).lines
            }
            func change(_ resources: ResourcesSpec) throws {
                let path = "\(fixture.directory)/resources.json"
                try File.replace(path, with: resources.json.serialized())
                try fixture.must("update", "--resources", path, "c1")
            }

            try start()
            #expect(try found() == Self.only(0))
            #expect(try executed("a") == Self.only(0))
            try fixture.must("update", "--pids-limit", "100", "c1")
            #expect(try executed("b") == Self.only(0), "other limits leave the rules as they are")
            try change(Self.resources(1))
            #expect(try executed("c") == Self.only(1))
            try fixture.must("update", "--pids-limit", "200", "c1")
            #expect(try executed("d") == Self.only(1), "nor do they bring the configuration's back")

            let pid = try fixture.state("c1").pid
            try fixture.must("delete", "--force", "c1")
            _ = fixture.wait(pid)
            try File.removeFile(seen)
            try start()
            #expect(try found() == Self.only(0), "a successor has the configuration's rules")
            #expect(try executed("e") == Self.only(0))
        }
    }
}
