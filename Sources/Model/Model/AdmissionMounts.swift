extension Admission {
    private static let propagations: Set = ["private", "rprivate", "shared", "rshared", "slave", "rslave"]

    /// Flags of mount(8) that act on one mount.
    private static let flags: Set = [
        "exec", "noexec", "suid", "nosuid", "dev", "nodev", "atime", "noatime", "relatime", "norelatime", "strictatime",
        "nostrictatime", "diratime", "nodiratime", "symfollow", "nosymfollow", "ro", "rw", "defaults",
    ]

    /// What tmpfs(5) has beside them.
    private static let tmpfsOptions: Set = ["size", "mode", "uid", "gid", "nr_inodes", "nr_blocks"]

    /// How something is mounted, apart from what and where.
    func way(_ mount: Mount, at path: String) throws(AdmissionError) {
        let isBind = if case .bind = mount.source { true } else { false }
        if let propagation = mount.propagation {
            guard isBind else { throw AdmissionError("\(path).propagation", "goes only with a bind") }
            guard Self.propagations.contains(propagation) else {
                throw AdmissionError(
                    "\(path).propagation",
                    "\(Self.quoted(propagation)) is none of \(Self.propagations.sorted().joined(separator: ", "))")
            }
        }
        guard isBind || !mount.createSource else {
            throw AdmissionError("\(path).createSource", "goes only with a bind")
        }
        try bounded(mount.options.count, 32, "options", at: "\(path).options")
        for (index, option) in mount.options.enumerated() where !isAllowed(option, mount.source) {
            throw AdmissionError("\(path).options[\(index)]", "\(Self.quoted(option)) is no option of this mount")
        }
        guard !mount.isFile || mount.options.isEmpty else {
            throw AdmissionError("\(path).options", "do not go with a secret or config")
        }
        if let subpath = mount.subpath {
            guard case .volume = mount.source else {
                throw AdmissionError("\(path).subpath", "goes only with a volume")
            }
            try text(subpath, atMost: 4096, "the path", at: "\(path).subpath")
            guard !subpath.hasPrefix("/"), Self.isCleanPath("/" + subpath) else {
                throw AdmissionError(
                    "\(path).subpath", "\(Self.quoted(subpath)) is no relative path without '.' and '..'")
            }
        }
    }

    private func isAllowed(_ option: String, _ source: Mount.Source) -> Bool {
        if Self.flags.contains(option) { return true }
        guard case .tmpfs = source, let equals = option.firstIndex(of: "=") else { return false }
        let value = option[option.index(after: equals)...]
        return Self.tmpfsOptions.contains(String(option[..<equals])) && (1...20).contains(value.utf8.count)
            && value.utf8.allSatisfy { Self.isAlphanumeric($0) || $0 == UInt8(ascii: "%") }
    }
}
