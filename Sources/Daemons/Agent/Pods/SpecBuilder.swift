import AgentCore
import CDI
import CDISpec
import Confinement
import Images
import JSON
import Kernel
import Model
import OCISpec
import Wire

/// Writes the OCI configuration of one start: what the user asked for, the image's defaults, and ours.
struct SpecBuilder: Sendable {
    let assignment: TaskAssignment
    let container: Model.ContainerSpec
    let pod: PodFile
    let user: ContainerUser
    let paths: TaskPaths
    /// The container's cgroup below every hierarchy's root.
    let cgroup: String
    /// All controllers are on cgroup v2: containers get a cgroup namespace of their own.
    let isUnified: Bool
    /// The kernel counts swap, so that it can be limited: see `CgroupManager.accountsSwap`.
    var accountsSwap = true
    /// What it shares of other containers.
    var joined = JoinedNamespaces()
    /// Binds that stay connected to the node's mounts, opened, by their places in the container.
    var sources: [String: SharedFD] = [:]
    /// The program on the node that becomes the first process of containers that want an init.
    var initProgram = ""
    /// Groups beside the user's own.
    var groups: [UInt32] = []
    /// What the devices that it gets by their CDI names change.
    var deviceEdits = CDIEdits()
    /// What it may run on while others have processors alone; nil: all.
    var sharedProcessors: ProcessorSet?
    /// Sizes of huge pages that the node may have and can limit, see `HugepageSize`.
    var hugepageSizes: [String] = []
    /// What containers may run on now; nil: that is not known.
    var allowedProcessors: ProcessorSet?

    /// Where the init program is in a container.
    static let initTarget = "/dev/init"

    static let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

    /// Mounts without those that a later one above them hides.
    private static func visible(_ mounts: [MountSpec]) -> [MountSpec] {
        mounts.enumerated().filter { position, mount in
            !mounts[(position + 1)...].contains { mount.destination.hasPrefix($0.destination + "/") }
        }.map(\.element)
    }

    /// - Throws: `ExecutorFailure` naming what cannot be honoured.
    func build() throws(ExecutorFailure) -> OCISpec.ContainerSpec {
        let capabilities = try grantedCapabilities()
        var spec = OCISpec.ContainerSpec()
        spec.root = RootSpec(path: paths.rootfs, readonly: container.readOnlyRoot)
        if assignment.pod.namespaces.uts == .own {
            spec.hostname = pod.hostname
            if !assignment.pod.domainname.isEmpty { spec.domainname = assignment.pod.domainname }
        }
        spec.annotations = container.annotations
        spec.process = try process(capabilities)
        spec.mounts = try mounts()
        spec.linux = try linux(capabilities)
        guard deviceEdits.netDevices.isEmpty else {
            throw ExecutorFailure(
                "a device cannot be given to the container: its CDI specification has netDevices, and a link would not come "
                    + "back from a pod's network; use it with another engine")
        }
        // The edits sort mounts by their depth: what another one hides would come to light.
        if !deviceEdits.mounts.isEmpty { spec.mounts = Self.visible(spec.mounts) }
        do throws(CDIError) {
            // They are made in the whole configuration, and take the place of what is in it.
            try deviceEdits.apply(to: &spec)
        } catch {
            throw ExecutorFailure("a device cannot be given to the container: \(error)")
        }
        return spec
    }

    // MARK: The process

    /// Entrypoint and command, the user's before the image's. A new entrypoint voids the image's command.
    func arguments() throws(ExecutorFailure) -> [String] {
        let entrypoint = container.entrypoint ?? pod.image.entrypoint ?? []
        let command = container.command ?? (container.entrypoint == nil ? pod.image.command : nil) ?? []
        let all = entrypoint + command
        guard let program = all.first, !program.isEmpty else {
            throw ExecutorFailure(
                "image \(container.image) says no command to run; give one after its name", exitCode: 127)
        }
        return all
    }

    /// The image's variables under the user's, with what a process expects to find.
    func environment(terminal: Bool) -> [String] {
        var entries = [Self.path, "HOSTNAME=\(pod.hostname)"]
        if terminal { entries.append("TERM=xterm") }
        let images = container.environmentIsWhole ? [] : pod.image.environment
        return Self.merge(entries + images, container.environment, home: user.home)
    }

    /// Later entries win, at the place of the first; HOME is added when nobody gave one.
    static func merge(_ entries: [String], _ more: [String], home: String) -> [String] {
        var result: [String] = []
        var places: [Substring: Int] = [:]
        for entry in entries + more {
            let key = entry.prefix { $0 != "=" }
            if let place = places[key] {
                result[place] = entry
            } else {
                places[key] = result.count
                result.append(entry)
            }
        }
        if places["HOME"] == nil { result.append("HOME=\(home)") }
        return result
    }

    var workingDirectory: String {
        let given = container.workingDirectory.isEmpty ? pod.image.workingDirectory : container.workingDirectory
        if given.isEmpty { return "/" }
        return given.isAbsolutePath ? given : "/" + given
    }

    private func process(_ capabilities: CapabilitySet) throws(ExecutorFailure) -> ProcessSpec {
        var arguments = try arguments()
        if container.initProcess { arguments = [Self.initTarget, "init", "--"] + arguments }
        var process = ProcessSpec(args: arguments, cwd: workingDirectory)
        process.terminal = container.terminal
        process.user = UserSpec(
            uid: user.uid, gid: user.gid, additionalGids: user.groups + groups.filter { !user.groups.contains($0) })
        process.oomScoreAdj = container.oomScoreAdjust.map { Int32($0) }
        process.env = environment(terminal: container.terminal)
        process.noNewPrivileges = container.noNewPrivileges
        process.capabilities = Self.capabilities(capabilities, isRoot: user.uid == 0)
        for limit in container.rlimits {
            process.rlimits.append(
                RlimitSpec(type: "RLIMIT_\(limit.name.uppercased())", hard: limit.hard, soft: limit.soft))
        }
        return process
    }

    /// Who is not root gets them in the bounding set only, as execve(2) of such a user would leave it.
    static func capabilities(_ set: CapabilitySet, isRoot: Bool) -> CapabilitiesSpec {
        let names = set.names
        return CapabilitiesSpec(
            bounding: names, effective: isRoot ? names : [], permitted: isRoot ? names : [])
    }

    /// All that a container can have on this node.
    static func grantable() throws(ExecutorFailure) -> CapabilitySet {
        do throws(KernelError) {
            return try CapabilityPlan.grantable()
        } catch {
            throw ExecutorFailure("the agent's own capabilities cannot be read: \(error)")
        }
    }

    private func grantedCapabilities() throws(ExecutorFailure) -> CapabilitySet {
        var set = CapabilitySet.containerDefaults
        if container.privileged { set = try Self.grantable() }
        func named(_ names: [String]) throws(ExecutorFailure) -> (all: Bool, set: CapabilitySet) {
            var result: [Confinement.Capability] = []
            for name in names where name.uppercased() != "ALL" {
                let full = name.uppercased().hasPrefix("CAP_") ? name.uppercased() : "CAP_" + name.uppercased()
                guard let capability = Confinement.Capability(name: full) else {
                    throw ExecutorFailure("capability \(name) is not known to this node's kernel")
                }
                result.append(capability)
            }
            return (names.contains { $0.uppercased() == "ALL" }, CapabilitySet(result))
        }
        let added = try named(container.capabilitiesAdded)
        let dropped = try named(container.capabilitiesDropped)
        if dropped.all { set = [] }
        if added.all { set = try Self.grantable() }
        set.formUnion(added.set)
        set.subtract(dropped.set)
        return set
    }
}
