import JSON
import OCISpec

/// A CDI specification (CDI 1.1.0): devices of one vendor and class, and what each of them changes in the OCI
/// configuration of a container that gets it.
///
/// A value of this type is valid: it was read by `parse`, or made and checked by the same rules.
package struct CDISpecification: Sendable, Equatable {
    /// What it was written for; fields that came later are not in it.
    package let version: CDIVersion
    /// Vendor and class of all its devices.
    package let kind: CDIKind
    /// For readers of the specification; nothing of a container.
    package let annotations: [String: String]
    /// At least one, each with a name of its own.
    package let devices: [CDIDevice]
    /// Made once in a container that gets one or more of the devices, before the devices' own.
    package let edits: CDIEdits

    init(
        version: CDIVersion, kind: CDIKind, annotations: [String: String], devices: [CDIDevice], edits: CDIEdits
    ) {
        self.version = version
        self.kind = kind
        self.annotations = annotations
        self.devices = devices
        self.edits = edits
    }

    /// Makes a specification of the lowest version that has all of it, so that older readers take it too.
    ///
    /// - Throws: `JSONError` with the path of what breaks a rule; no devices break one.
    package init(
        kind: CDIKind, annotations: [String: String] = [:], devices: [CDIDevice], edits: CDIEdits = CDIEdits()
    ) throws(JSONError) {
        let plain = CDISpecification(
            version: .v0_3_0, kind: kind, annotations: annotations, devices: devices, edits: edits)
        let made = CDISpecification(
            version: plain.minimumVersion, kind: kind, annotations: annotations, devices: devices, edits: edits)
        try self.init(JSONReader(made.json))
    }

    /// The name by which a device is asked for.
    package func name(of device: CDIDevice) -> CDIName { CDIName(kind: kind, device: device.name) }
}

/// A device of a specification: hardware, a part of it, or several together.
package struct CDIDevice: Sendable, Equatable {
    /// Within its kind.
    package var name: String
    /// For readers of the specification; nothing of a container.
    package var annotations: [String: String]
    /// Made in a container that gets the device; never empty in a valid specification.
    package var edits: CDIEdits

    package init(_ name: String, annotations: [String: String] = [:], edits: CDIEdits) {
        self.name = name
        self.annotations = annotations
        self.edits = edits
    }
}

/// `containerEdits`: changes to a container's OCI configuration, in the order in which they are made.
package struct CDIEdits: Sendable, Equatable {
    /// `NAME=value`; one whose name is there already takes its place.
    package var env: [String]
    package var deviceNodes: [CDIDeviceNode]
    /// Links of the host that move into the container (1.1.0).
    package var netDevices: [CDINetDevice]
    package var mounts: [CDIMount]
    package var hooks: [CDIHook]
    /// A class of service of the resctrl file system (0.7.0).
    package var intelRdt: IntelRdtSpec?
    /// Further groups of the container's program (0.7.0); 0 is passed over.
    package var additionalGids: [UInt32]

    package init(
        env: [String] = [], deviceNodes: [CDIDeviceNode] = [], netDevices: [CDINetDevice] = [],
        mounts: [CDIMount] = [], hooks: [CDIHook] = [], intelRdt: IntelRdtSpec? = nil, additionalGids: [UInt32] = []
    ) {
        self.env = env
        self.deviceNodes = deviceNodes
        self.netDevices = netDevices
        self.mounts = mounts
        self.hooks = hooks
        self.intelRdt = intelRdt
        self.additionalGids = additionalGids
    }

    /// Whether nothing is changed.
    package var isEmpty: Bool { self == CDIEdits() }

    /// Adds what is to be made after this. Of two classes of service the last is the one.
    package mutating func append(_ other: CDIEdits) {
        env += other.env
        deviceNodes += other.deviceNodes
        netDevices += other.netDevices
        mounts += other.mounts
        hooks += other.hooks
        intelRdt = other.intelRdt ?? intelRdt
        additionalGids += other.additionalGids
    }
}

/// A device node in the container.
package struct CDIDeviceNode: Sendable, Equatable {
    /// Absolute path in the container.
    package var path: String
    /// Absolute path on the host (0.5.0); nil for the same.
    package var hostPath: String?
    /// nil for what the host's node is.
    package var type: DeviceSpec.Kind?
    /// Both are the host node's where `type` is nil or `major` is 0.
    package var major: UInt32
    package var minor: UInt32
    /// Permission bits; nil for the host node's.
    package var fileMode: UInt32?
    /// Of `r`, `w` and `m`, or `none`; nil for all three.
    package var permissions: String?
    /// The owner in the container; nil for that of its program.
    package var uid: UInt32?
    package var gid: UInt32?

    package init(
        path: String, hostPath: String? = nil, type: DeviceSpec.Kind? = nil, major: UInt32 = 0, minor: UInt32 = 0,
        fileMode: UInt32? = nil, permissions: String? = nil, uid: UInt32? = nil, gid: UInt32? = nil
    ) {
        self.path = path
        self.hostPath = hostPath
        self.type = type
        self.major = major
        self.minor = minor
        self.fileMode = fileMode
        self.permissions = permissions
        self.uid = uid
        self.gid = gid
    }
}

/// A mount in the container.
package struct CDIMount: Sendable, Equatable {
    /// What is mounted: a path of the host, absolute unless `type` is that of another file system than a bind mount.
    package var hostPath: String
    /// Absolute path in the container.
    package var containerPath: String
    /// A file system's type (0.4.0).
    package var type: String?
    package var options: [String]

    package init(hostPath: String, containerPath: String, type: String? = nil, options: [String] = []) {
        self.hostPath = hostPath
        self.containerPath = containerPath
        self.type = type
        self.options = options
    }

    var isBind: Bool { type == "bind" || options.contains("bind") || options.contains("rbind") }
}

/// A program that the runtime calls at one point of the container's life.
package struct CDIHook: Sendable, Equatable {
    /// The points, by the names of the OCI runtime specification.
    package enum Point: String, Sendable, CaseIterable {
        case prestart, createRuntime, createContainer, startContainer, poststart, poststop
    }

    package var point: Point
    /// Path, arguments, environment, seconds.
    package var hook: HookSpec

    package init(_ point: Point, _ hook: HookSpec) {
        self.point = point
        self.hook = hook
    }
}

/// A link of the host that moves into the container.
package struct CDINetDevice: Sendable, Equatable {
    package var hostInterfaceName: String
    /// Its name in the container.
    package var name: String

    package init(hostInterfaceName: String, name: String) {
        self.hostInterfaceName = hostInterfaceName
        self.name = name
    }
}

/// Why devices cannot be read, resolved or given to a container: one sentence with the file or the device in it.
package struct CDIError: Error, Sendable, Equatable, CustomStringConvertible {
    package let description: String

    package init(_ description: String) { self.description = description }
}

/// Bounds of what is read from a specification.
package enum CDILimits {
    /// Bytes of a file.
    package static let bytes = 1 << 20
    /// Devices in a specification.
    package static let devices = 4096
    /// Members of one list within edits, or of annotations.
    package static let elements = 4096
    /// Bytes of all annotations of one object, as Kubernetes has it.
    package static let annotationBytes = 256 << 10
    package static let json = JSONLimits(bytes: bytes, depth: 16, stringBytes: 64 << 10)
}
