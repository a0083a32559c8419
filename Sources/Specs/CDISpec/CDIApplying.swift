import OCISpec

/// What a device node of the host is, see stat(2).
package struct CDIHostNode: Sendable, Equatable {
    /// `.character`, `.block` or `.fifo`.
    package var kind: DeviceSpec.Kind
    package var major: UInt32
    package var minor: UInt32
    /// Permission bits.
    package var mode: UInt32

    package init(_ kind: DeviceSpec.Kind, major: UInt32, minor: UInt32, mode: UInt32) {
        self.kind = kind
        self.major = major
        self.minor = minor
        self.mode = mode
    }
}

extension CDIEdits {
    /// Makes the edits in a container's configuration, as the reference implementation does (its release 1.1.0).
    ///
    /// - Parameter node: what the host has at a path; throws where there is no device node.
    /// - Throws: `CDIError` when a device node has to be looked at and cannot be, or is another kind than the
    ///   specification says; `spec` may be changed in part then.
    package func apply(
        to spec: inout ContainerSpec, node: (_ hostPath: String) throws(CDIError) -> CDIHostNode
    ) throws(CDIError) {
        if !env.isEmpty { applyEnvironment(to: &spec) }
        for device in deviceNodes { try device.apply(to: &spec, node) }
        if !netDevices.isEmpty {
            var linux = spec.linux ?? LinuxSpec()
            for device in netDevices { linux.netDevices[device.hostInterfaceName] = NetDeviceSpec(name: device.name) }
            spec.linux = linux
        }
        if !mounts.isEmpty { applyMounts(to: &spec) }
        if !hooks.isEmpty { applyHooks(to: &spec) }
        if let intelRdt {
            var linux = spec.linux ?? LinuxSpec()
            linux.intelRdt = intelRdt
            spec.linux = linux
        }
        for gid in additionalGids where gid != 0 {
            var process = spec.process ?? ProcessSpec(args: [])
            if !process.user.additionalGids.contains(gid) { process.user.additionalGids.append(gid) }
            spec.process = process
        }
    }

    private func applyEnvironment(to spec: inout ContainerSpec) {
        var process = spec.process ?? ProcessSpec(args: [])
        // By bytes: what strings hold for the same name are several to the kernel.
        func name(_ variable: String) -> [UInt8] { Array(variable.utf8.prefix { $0 != UInt8(ascii: "=") }) }
        var places: [[UInt8]: Int] = [:]
        for (place, variable) in process.env.enumerated() { places[name(variable)] = place }
        for variable in env {
            if let place = places[name(variable)] {
                process.env[place] = variable
            } else {
                places[name(variable)] = process.env.count
                process.env.append(variable)
            }
        }
        spec.process = process
    }

    private func applyMounts(to spec: inout ContainerSpec) {
        let hasUserNamespace = spec.linux?.namespace(.user) != nil
        for mount in mounts {
            if let old = spec.mounts.firstIndex(where: { isSame($0.destination, mount.containerPath) }) {
                spec.mounts.remove(at: old)
            }
            var options = mount.options
            if hasUserNamespace, let map = mount.idMap { options.append(map) }
            spec.mounts.append(
                MountSpec(
                    destination: mount.containerPath, type: mount.type, source: mount.hostPath, options: options))
        }
        // What is mounted inside another comes behind it, and what is as deep stays in its order.
        spec.mounts = spec.mounts.enumerated().map { (depth($1.destination), $0, $1) }
            .sorted { ($0.0, $0.1) < ($1.0, $1.1) }.map(\.2)
    }

    private func applyHooks(to spec: inout ContainerSpec) {
        var all = spec.hooks ?? HooksSpec()
        for hook in hooks {
            switch hook.point {
            case .prestart: all.prestart.append(hook.hook)
            case .createRuntime: all.createRuntime.append(hook.hook)
            case .createContainer: all.createContainer.append(hook.hook)
            case .startContainer: all.startContainer.append(hook.hook)
            case .poststart: all.poststart.append(hook.hook)
            case .poststop: all.poststop.append(hook.hook)
            }
        }
        spec.hooks = all
    }
}

extension CDIMount {
    /// The option that gives a bind mount the ids of the container's user namespace; nil for one that has it, and for
    /// what is no bind mount.
    fileprivate var idMap: String? {
        var option = type == "bind" ? "idmap" : nil
        for word in options {
            switch word {
            case "idmap", "ridmap": return nil
            case "bind": option = "idmap"
            case "rbind": option = "ridmap"
            default: break
            }
        }
        return option
    }
}

extension CDIDeviceNode {
    fileprivate func apply(
        to spec: inout ContainerSpec, _ node: (String) throws(CDIError) -> CDIHostNode
    ) throws(CDIError) {
        var device = try device(node)
        // Who a node in the container belongs to who may open it: its program.
        if device.uid == nil, let uid = spec.process?.user.uid, uid > 0 { device.uid = uid }
        if device.gid == nil, let gid = spec.process?.user.gid, gid > 0 { device.gid = gid }
        var linux = spec.linux ?? LinuxSpec()
        linux.devices.removeAll { isSame($0.path, path) }
        linux.devices.append(device)
        if device.type == .block || device.type == .character {
            var resources = linux.resources ?? ResourcesSpec()
            resources.devices.append(
                DeviceRuleSpec(
                    allow: true, type: device.type.rawValue, major: Int64(device.major), minor: Int64(device.minor),
                    access: access))
            linux.resources = resources
        }
        spec.linux = linux
    }

    /// The letters of the rule for the device cgroup.
    private var access: String {
        switch permissions {
        case nil: "rwm"
        case "none": ""
        case let letters?: letters
        }
    }

    /// The node with what the specification leaves to the host.
    private func device(_ node: (String) throws(CDIError) -> CDIHostNode) throws(CDIError) -> DeviceSpec {
        let whole = type.map { $0 == .fifo || major != 0 } ?? false
        let host: CDIHostNode?
        do throws(CDIError) {
            host = try node(hostPath ?? path)
        } catch {
            // A specification may say all of a device that the host has no node for.
            guard whole else { throw error }
            host = nil
        }
        var device = DeviceSpec(
            path: path, type: type ?? host?.kind ?? .character, major: major, minor: minor,
            fileMode: fileMode ?? host?.mode, uid: uid, gid: gid)
        guard !whole, let host else { return device }
        guard device.type == host.kind else {
            throw CDIError(
                "the device node \(path) is to be of type \(device.type.rawValue), and \(hostPath ?? path) of this host is "
                    + "\(host.kind.rawValue)")
        }
        if device.type != .fifo, major == 0 { (device.major, device.minor) = (host.major, host.minor) }
        return device
    }
}

/// Whether two paths are the same bytes.
private func isSame(_ left: String, _ right: String) -> Bool { left.utf8.elementsEqual(right.utf8) }

/// How many `/` a path has when `.`, `..` and double ones are taken out of it.
private func depth(_ path: String) -> Int {
    var names = 0
    let isAbsolute = path.utf8.first == UInt8(ascii: "/")
    var outside = 0
    for name in path.utf8.split(separator: UInt8(ascii: "/")) {
        if name.elementsEqual(".".utf8) { continue }
        guard name.elementsEqual("..".utf8) else {
            names += 1
            continue
        }
        if names > 0 { names -= 1 } else if !isAbsolute { outside += 1 }
    }
    return isAbsolute ? max(names, 1) : max(names + outside - 1, 0)
}
