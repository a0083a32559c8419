/// A transient scope of systemd: the unit that a container's group belongs to where systemd manages the groups.
package struct SystemdScope: Sendable, Equatable {
    /// The slice it is in: `system.slice`.
    package let slice: String
    /// Its name: `martlet-x.scope`.
    package let unit: String

    /// - Throws: `CgroupError` of kind `invalidPath` for names that are none, see systemd.unit(5).
    package init(slice: String, unit: String) throws(CgroupError) {
        self.slice = slice
        self.unit = unit
        guard unit.hasSuffix(".scope"), Self.isName(unit), unit.utf8.count > 6 else {
            throw Self.refuse("'\(unit)' is no name of a scope")
        }
        _ = try Self.path(of: slice)
    }

    /// Reads a path of the form `slice:prefix:name`.
    ///
    /// - Parameter path: nil and empty for a scope in system.slice named after the container.
    /// - Throws: `CgroupError` of kind `invalidPath`.
    package init(path: String?, container: String) throws(CgroupError) {
        guard let path, !path.isEmpty else {
            try self.init(slice: "system.slice", unit: "martlet-\(container).scope")
            return
        }
        let parts = path.split(separator: ":", omittingEmptySubsequences: false).map { String($0) }
        guard parts.count == 3, !parts[2].isEmpty else {
            throw Self.refuse("'\(path)' is not of the form slice:prefix:name")
        }
        guard !parts[2].hasSuffix(".slice") else {
            throw Self.refuse("'\(path)' names a slice for the container itself, which is not supported")
        }
        let prefix = parts[1].isEmpty ? "" : parts[1] + "-"
        try self.init(slice: parts[0].isEmpty ? "system.slice" : parts[0], unit: "\(prefix)\(parts[2]).scope")
    }

    /// Where the group is below the mount point.
    package var path: String {
        // Checked when it was made.
        ((try? Self.path(of: slice)) ?? "") + "/" + unit
    }

    /// `a-b.slice` lies in `a.slice`; `-.slice` is the root.
    private static func path(of slice: String) throws(CgroupError) -> String {
        guard slice.hasSuffix(".slice"), isName(slice) else { throw refuse("'\(slice)' is no name of a slice") }
        let name = slice.dropLast(6)
        if name == "-" { return "" }
        var (path, prefix) = ("", "")
        for part in name.split(separator: "-", omittingEmptySubsequences: false) {
            guard !part.isEmpty else { throw refuse("'\(slice)' is no name of a slice") }
            path += "/\(prefix)\(part).slice"
            prefix += "\(part)-"
        }
        return path
    }

    private static func isName(_ text: String) -> Bool {
        let others = Array(":-_.\\@".utf8)
        return text.utf8.count <= 255
            && text.utf8.allSatisfy { byte in
                (48...57).contains(byte) || (65...90).contains(byte) || (97...122).contains(byte)
                    || others.contains(byte)
            }
    }

    private static func refuse(_ reason: String) -> CgroupError {
        CgroupError(
            .invalidPath, controller: "systemd", "linux.cgroupsPath", reason,
            hint: "write it as system.slice:martlet:name")
    }
}

extension SystemdScope {
    /// What becomes of a scope of which a process was killed for lack of memory, see systemd.scope(5).
    package enum OOMPolicy: String, Sendable {
        case `continue`
        case kill

        /// What `memory.oom.group` of a configuration says; nil where it says nothing.
        package init?(_ resources: CgroupResources) {
            guard let entry = resources.unified.last(where: { $0.file == "memory.oom.group" }) else { return nil }
            self = entry.value == "0" ? .continue : .kill
        }
    }

    /// Has systemd make the scope with a process in it; the group below is ours to divide.
    ///
    /// - Parameters:
    ///   - pid: it has to live until another process is in the group.
    ///   - oomPolicy: left out where this systemd knows none for scopes; nil for what is usual.
    ///   - properties: further ones, from the configuration.
    /// - Throws: `CgroupError` with systemd's own words.
    package func start(
        _ systemd: SystemdConnection, pid: UInt32, description: String, oomPolicy: OOMPolicy? = nil,
        properties: [SystemdProperty] = []
    ) throws(CgroupError) {
        var own = [
            SystemdProperty("Description", .string(description)), SystemdProperty("Slice", .string(slice)),
            SystemdProperty("Delegate", .boolean(true)), SystemdProperty("PIDs", .array(of: "u", [.uint32(pid)])),
            SystemdProperty("MemoryAccounting", .boolean(true)), SystemdProperty("CPUAccounting", .boolean(true)),
            SystemdProperty("IOAccounting", .boolean(true)), SystemdProperty("TasksAccounting", .boolean(true)),
            SystemdProperty("DefaultDependencies", .boolean(false)),
        ]
        func arguments() -> [DBusValue] {
            [.string(unit), .string("replace"), SystemdProperty.list(own + properties), .array(of: "(sa(sv))", [])]
        }
        if let oomPolicy { own.append(SystemdProperty("OOMPolicy", .string(oomPolicy.rawValue))) }
        var answer = try systemd.call("StartTransientUnit", arguments())
        if oomPolicy != nil, case .failure(_, let text) = answer, text.contains("OOMPolicy") {
            own.removeLast()
            answer = try systemd.call("StartTransientUnit", arguments())
        }
        if case .failure(let name, _) = answer, name == "org.freedesktop.systemd1.UnitExists" {
            // One of this name that failed is still remembered.
            _ = try systemd.call("ResetFailedUnit", [.string(unit)])
            answer = try systemd.call("StartTransientUnit", arguments())
        }
        let result = try systemd.result(of: try systemd.require(unit, answer), unit)
        guard result == "done" else {
            _ = try systemd.call("ResetFailedUnit", [.string(unit)])
            throw CgroupError(.refused, controller: "systemd", unit, "systemd did not start it: \(result)")
        }
    }

    /// Ends the scope and has systemd forget it; one that is gone is fine.
    package func stop(_ systemd: SystemdConnection) throws(CgroupError) {
        let answer = try systemd.call("StopUnit", [.string(unit), .string("replace")])
        if case .failure(let name, _) = answer, name == "org.freedesktop.systemd1.NoSuchUnit" { return }
        _ = try systemd.result(of: try systemd.require(unit, answer), unit)
        // A failed one stays until it is reset; one that did not fail is not there any more.
        _ = try systemd.call("ResetFailedUnit", [.string(unit)])
    }

    /// Changes properties of the running scope, until it ends.
    package func set(_ systemd: SystemdConnection, _ properties: [SystemdProperty]) throws(CgroupError) {
        guard !properties.isEmpty else { return }
        let answer = try systemd.call(
            "SetUnitProperties", [.string(unit), .boolean(true), SystemdProperty.list(properties)])
        try systemd.require(unit, answer)
    }
}
