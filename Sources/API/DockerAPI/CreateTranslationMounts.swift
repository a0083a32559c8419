import Model
import Wire

/// Binds, Mounts, VolumesFrom, Tmpfs, and volumes without a name.
extension CreateTranslation {
    mutating func mounts() throws {
        let inherited = try (host.volumesFrom ?? []).flatMap { try mounts(from: $0) }
        let own = try (host.binds ?? []).map { try bind($0) } + (host.mounts ?? []).map { try mount($0) }
        var places: Set<String> = []
        for mount in own where !places.insert(mount.target).inserted {
            throw DockerError.badRequest("Duplicate mount point: \(mount.target)")
        }
        // What two of the others have at one place comes from the last of them.
        let latest = Dictionary(inherited.enumerated().map { ($1.target, $0) }) { _, last in last }
        spec.mounts =
            own
            + inherited.enumerated().filter { latest[$1.target] == $0 && !places.contains($1.target) }
            .map(\.element)
        places.formUnion(inherited.map(\.target))
        for (path, options) in (host.tmpfs ?? [:]).sorted(by: { $0.key < $1.key }) {
            let mount = try tmpfs(path, options.split(separator: ",").map(String.init), "HostConfig.Tmpfs")
            guard places.insert(mount.target).inserted else {
                throw DockerError.badRequest("Duplicate mount point: \(mount.target)")
            }
            spec.mounts.append(mount)
        }
        for path in (request.volumes ?? [:]).keys.sorted() + image.volumes {
            let target = try Self.target(path)
            if places.insert(target).inserted { spec.mounts.append(Self.anonymous(at: target)) }
        }
    }

    /// `container[:ro|rw]`: its binds and volumes.
    private mutating func mounts(from text: String) throws -> [Mount] {
        let (name, mode) = Self.volumesFrom(text)
        guard let other = others[name] else { throw DockerAPI.noContainer(name) }
        guard ["", "ro", "rw", "z", "Z"].contains(mode) else {
            throw DockerError.badRequest("invalid mode: \(mode.prefix(40)) in HostConfig.VolumesFrom")
        }
        let affinity = Constraint(label: "container", relation: .equal, value: other.id.text)
        if !pod.affinities.contains(affinity) { pod.affinities.append(affinity) }
        return other.spec.mounts.compactMap { mount in
            var mount = mount
            switch mount.source {
            case .bind, .volume: break
            case .tmpfs, .secret, .config: return nil
            }
            if mode == "ro" { mount.readOnly = true }
            mount.isAnonymous = false
            return mount
        }
    }

    static func volumesFrom(_ text: String) -> (name: String, mode: String) {
        let parts = text.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
        return (parts.first ?? "", parts.count == 2 ? parts[1] : "")
    }

    private static func target(_ path: String) throws -> String {
        guard let clean = PathText.clean(path) else {
            throw DockerError.badRequest("invalid mount path: \(Admission.quoted(path)) mount path must be absolute")
        }
        guard clean != "/" else {
            throw DockerError.badRequest("invalid volume specification: destination can't be '/'")
        }
        return clean
    }

    static func anonymous(at target: String) -> Mount {
        var random = SystemRandomNumberGenerator()
        var mount = Mount(.volume(name: ContainerID.makeContainer(&random).text), target: target)
        mount.isAnonymous = true
        return mount
    }

    private static func volume(_ name: String) throws -> Mount.Source {
        guard Admission.isVolumeName(name), name.utf8.count > 1 else {
            throw DockerError.badRequest(
                "\(Admission.quoted(name)) includes invalid characters for a local volume name: 2 to 128 of "
                    + "[a-zA-Z0-9_.-] are allowed, the first a letter or digit; a path of the node is absolute")
        }
        return .volume(name: name)
    }

    // MARK: Binds

    private static let propagations: Set = ["private", "rprivate", "shared", "rshared", "slave", "rslave"]

    /// `source:target[:options]`; a target alone is a volume without a name.
    private func bind(_ text: String) throws -> Mount {
        let parts = text.split(separator: ":", omittingEmptySubsequences: false).map(String.init)
        guard (1...3).contains(parts.count), !parts.contains("") else {
            throw DockerError.badRequest("invalid volume specification: \(Admission.quoted(text))")
        }
        guard parts.count > 1 else { return Self.anonymous(at: try Self.target(parts[0])) }
        var mount: Mount
        if let path = PathText.clean(parts[0]) {
            mount = Mount(.bind(path: path), target: try Self.target(parts[1]))
            mount.createSource = true
        } else {
            mount = Mount(try Self.volume(parts[0]), target: try Self.target(parts[1]))
        }
        var seen: Set<Substring> = []
        for option in parts.count == 3 ? parts[2].split(separator: ",") : [] {
            let invalid = DockerError.badRequest("invalid mode: \(parts[2].prefix(80))")
            switch (option, mount.source) {
            case ("rw", _), ("z", _), ("Z", _): break
            case ("ro", _): mount.readOnly = true
            case ("consistent", _), ("cached", _), ("delegated", _), ("default", _): break
            case ("nocopy", .volume): mount.copyUp = false
            case (let word, .bind) where Self.propagations.contains(String(word)): mount.propagation = String(word)
            default: throw invalid
            }
            guard seen.insert(option).inserted, !(seen.contains("ro") && seen.contains("rw")) else { throw invalid }
        }
        return mount
    }

    // MARK: Mounts

    private func mount(_ asked: MountRequest) throws -> Mount {
        let type = asked.type ?? ""
        let target = try Self.target(asked.target ?? "")
        let source = asked.source ?? ""
        func refuse(_ why: String) -> DockerError {
            .badRequest("invalid mount config for type \"\(type.prefix(40))\": \(why)")
        }
        func alone(_ mine: String) throws {
            let options = [
                ("bind", asked.bindOptions != nil), ("volume", asked.volumeOptions != nil),
                ("tmpfs", asked.tmpfsOptions != nil),
            ]
            for (name, isGiven) in options where isGiven && name != mine {
                throw refuse("the options of \(name) do not go with it")
            }
        }
        var mount: Mount
        switch type {
        case "bind":
            try alone("bind")
            guard let path = PathText.clean(source) else { throw refuse("mount path must be absolute") }
            mount = Mount(.bind(path: path), target: target)
            if let word = asked.bindOptions?.propagation, !word.isEmpty {
                guard Self.propagations.contains(word) else {
                    throw refuse("invalid propagation mode: \(word.prefix(40))")
                }
                mount.propagation = word
            }
            mount.recursive = asked.bindOptions?.nonRecursive != true
            mount.createSource = asked.bindOptions?.createMountpoint ?? false
        case "volume":
            try alone("volume")
            let driver = asked.volumeOptions?.driverConfig?.name ?? ""
            guard driver.isEmpty || driver == "local" else {
                throw DockerError.unsupported("Mounts.VolumeOptions.DriverConfig.Name", "the driver is always local")
            }
            mount = source.isEmpty ? Self.anonymous(at: target) : Mount(try Self.volume(source), target: target)
            mount.copyUp = asked.volumeOptions?.noCopy != true
            mount.subpath = asked.volumeOptions?.subpath.flatMap { $0.isEmpty ? nil : $0 }
        case "tmpfs":
            try alone("tmpfs")
            guard source.isEmpty else { throw refuse("a source goes not with it") }
            let options = asked.tmpfsOptions
            mount = try tmpfs(
                target, (options?.options ?? []).map { $0.joined(separator: "=") }, "Mounts.TmpfsOptions.Options")
            guard case .tmpfs(let size, let mode) = mount.source else { return mount }
            let bytes = options?.sizeBytes.flatMap { $0 == 0 ? nil : $0 }
            let bits = options?.mode.flatMap { $0 == 0 ? nil : $0 }
            mount.source = .tmpfs(size: bytes ?? size, mode: bits.map { Self.octal($0) } ?? mode)
        case "cluster", "npipe", "image":
            throw DockerError.unsupported("HostConfig.Mounts of type \(type)", "bind, volume and tmpfs are")
        default: throw DockerError.badRequest("mount type unknown: \(Admission.quoted(type))")
        }
        if asked.readOnly == true { mount.readOnly = true }
        return mount
    }

    private static func octal(_ mode: Int) -> String {
        let digits = String(max(0, mode), radix: 8)
        return String(repeating: "0", count: max(0, 4 - digits.utf8.count)) + digits
    }

    /// Flags go on as they are; what else is known of tmpfs(5) has a place of its own.
    private func tmpfs(_ path: String, _ options: [String], _ field: String) throws -> Mount {
        var mount = Mount(.tmpfs(size: nil, mode: nil), target: try Self.target(path))
        var (size, mode): (Int64?, String?) = (nil, nil)
        for option in options {
            let pair = option.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
            switch (pair[0], pair.count == 2 ? pair[1] : nil) {
            case ("ro", nil): mount.readOnly = true
            case ("rw", nil): mount.readOnly = false
            case ("size", let text?):
                guard let bytes = ByteCount.parse(text), bytes > 0 else {
                    throw DockerError.badRequest("\(field) of \(mount.target): '\(text.prefix(40))' is no size as 64m")
                }
                size = bytes
            case ("mode", let text?): mode = text
            case (let flag, nil) where Self.flags.contains(flag): mount.options.append(flag)
            default:
                throw DockerError.unsupported(
                    "\(field) of \(mount.target)",
                    "the option \(Admission.quoted(option)) is not there; size, mode, ro, rw and "
                        + "\(Self.flags.sorted().joined(separator: ", ")) are")
            }
        }
        mount.source = .tmpfs(size: size, mode: mode)
        return mount
    }

    private static let flags: Set = [
        "exec", "noexec", "suid", "nosuid", "dev", "nodev", "atime", "noatime", "diratime", "nodiratime", "relatime",
        "norelatime", "strictatime", "nostrictatime", "sync", "async", "dirsync", "mand", "nomand",
    ]
}
