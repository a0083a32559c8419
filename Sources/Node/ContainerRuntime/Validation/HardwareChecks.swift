import Kernel
import OCISpec

extension Validation {
    /// Checks which links of the host move into the container. Whether they are there is seen when they move.
    func checkNetDevices(_ linux: LinuxSpec) throws {
        if linux.netDevices.isEmpty { return }
        guard SysctlCheck(linux: linux).owns(.network) else {
            throw RefusedField(
                "linux.netDevices",
                "links move into a network namespace other than the runtime's: "
                    + "linux.namespaces needs one")
        }
        var names: Set<String> = []
        for link in LinkTransfer.all(of: linux.netDevices) {
            let path = "linux.netDevices.\(link.name.prefix(64))"
            guard LinkTransfer.isName(link.name, template: false) else {
                throw RefusedField(path, "is no name of a network link")
            }
            guard link.name != "lo" else { throw RefusedField(path, "every namespace has its own loopback link") }
            guard LinkTransfer.isName(link.newName, template: true) else {
                throw RefusedField("\(path).name", "'\(link.newName.prefix(64))' is no name of a network link")
            }
            guard names.insert(link.newName).inserted || link.newName.hasSuffix("%d") else {
                throw RefusedField("\(path).name", "another link is called \(link.newName) already")
            }
        }
    }
}

extension LinkTransfer {
    /// What `linux.netDevices` says, by the order of the names.
    static func all(of devices: [String: NetDeviceSpec]) -> [LinkTransfer] {
        devices.keys.sorted().map { name in
            let wanted = devices[name]?.name ?? ""
            return LinkTransfer(name: name, newName: wanted.isEmpty ? name : wanted)
        }
    }
}
