import CNISpec
import Glibc
import Kernel

/// Who has which address of a network: a file for each address, as the reference plugin host-local keeps them, so that
/// either can go on where the other stopped.
///
/// In `dataDir/<network>`: a file named by the address with the container's id, CR LF and the device; the files
/// `last_reserved_ip.0` and, for the second subnet, `last_reserved_ip.1` with the address that was given last; `lock`, on which flock(2) is held over each change. A lease
/// appears whole (link(2)); one without an id in it is what a crash left of a lease, and nobody's.
package struct AddressLeases: Sendable {
    package let network: String
    package let directory: String
    /// Longest wait for the lock, in milliseconds.
    private let patience: Int

    private static let lastName = "last_reserved_ip"
    /// No address, so that nobody takes it for a lease.
    private static let newName = ".new"
    /// A lease is an id and a device's name.
    private static let leaseLimit = 1024

    package init(dataDirectory: String, network: String, patienceMilliseconds: Int = 10_000) {
        self.network = network
        directory = "\(dataDirectory)/\(network)"
        patience = patienceMilliseconds
    }

    /// Takes an address for a device.
    ///
    /// - Parameters:
    ///   - wanted: the only one that will do; nil: the next free one after the one that was given last.
    ///   - number: the subnet's among those of the network.
    /// - Throws: code 100 when none is free, 101 when somebody else has the only one, 11 when the lock is not let go.
    package func take(
        _ wanted: IPAddress?, of pool: AddressPool, number: Int = 0, for holder: PluginAttachment
    ) throws(CNIError) -> IPAddress {
        try CNIError.from { () throws(KernelError) in try File.makeDirectories(directory) }
        return try locked { () throws(CNIError) in
            let new = "\(directory)/\(Self.newName)"
            // One that a kill has left may be a lease as well, by its other name.
            unlink(new)
            try write(new, "\(holder.containerID)\r\n\(holder.interface)")
            defer { unlink(new) }
            if let wanted {
                if try place(new, at: wanted) { return wanted }
                throw CNIError(
                    code: CNIError.addressTaken,
                    message: "the address \(wanted) of the network \(network) belongs to container "
                        + "\(try self.holder(of: wanted)?.containerID ?? "?"): ask for another")
            }
            let lastName = "\(Self.lastName).\(number)"
            let last = try IPAddress(text(lastName) ?? "")
            var found: IPAddress?
            try pool.forEach(after: last) { address throws(CNIError) in
                guard try place(new, at: address) else { return false }
                found = address
                return true
            }
            guard let found else {
                throw CNIError(
                    code: CNIError.noAddress,
                    message: "the network \(network) has no free address: \(pool.count) of \(pool.count) in use")
            }
            try write("\(directory)/\(lastName)", found.description)
            return found
        }
    }

    /// Gives back what a device has; that it has nothing is no error.
    ///
    /// - Parameter expected: its addresses as far as the caller knows: where they are there is nowhere else to look.
    package func giveBack(_ holder: PluginAttachment, expected: [IPAddress]) throws(CNIError) {
        guard File.exists(directory) else { return }
        try locked { () throws(CNIError) in
            var known = !expected.isEmpty
            for address in expected where known { known = try self.holder(of: address) == holder }
            if known {
                for address in expected { try remove(address) }
                return
            }
            for (address, found) in try all() where found == holder { try remove(address) }
        }
    }

    /// Gives back exactly one address, if the device has it.
    package func giveBack(_ address: IPAddress, of holder: PluginAttachment) throws(CNIError) {
        try locked { () throws(CNIError) in
            if try self.holder(of: address) == holder { try remove(address) }
        }
    }

    /// Who has an address; nil: nobody.
    package func holder(of address: IPAddress) throws(CNIError) -> PluginAttachment? {
        try text(address.description).flatMap { Self.holder($0) }
    }

    /// All leases.
    package func all() throws(CNIError) -> [IPAddress: PluginAttachment] {
        guard File.exists(directory) else { return [:] }
        var leases: [IPAddress: PluginAttachment] = [:]
        let names = try CNIError.from { () throws(KernelError) in try File.list(directory) }
        for name in names {
            guard let address = IPAddress(name), let holder = try holder(of: address) else { continue }
            leases[address] = holder
        }
        return leases
    }

    // MARK: Files

    /// Makes the lease, unless somebody else has it.
    private func place(_ new: String, at address: IPAddress) throws(CNIError) -> Bool {
        let path = "\(directory)/\(address)"
        if link(new, path) == 0 { return true }
        guard errno == EEXIST else { throw CNIError(KernelError("link", path, errno: errno)) }
        guard try holder(of: address) == nil else { return false }
        try CNIError.from { () throws(KernelError) in
            try File.removeFile(path)
            try systemCall("link", path) { link(new, path) }
        }
        return true
    }

    private func remove(_ address: IPAddress) throws(CNIError) {
        try CNIError.from { () throws(KernelError) in try File.removeFile("\(directory)/\(address)") }
    }

    private static func holder(_ text: String) -> PluginAttachment? {
        let lines = text.split(whereSeparator: \.isNewline).map { String($0) }
        guard let id = lines.first, CNINames.isName(id) else { return nil }
        // Old versions of host-local wrote no device.
        let device = lines.dropFirst().first ?? ""
        return PluginAttachment(containerID: id, interface: CNINames.isInterface(device) ? device : "eth0")
    }

    /// Nil when there is no such file, or one that is too large to be a lease.
    private func text(_ name: String) throws(CNIError) -> String? {
        do throws(KernelError) {
            return try File.text("\(directory)/\(name)", limit: Self.leaseLimit)
        } catch {
            if error.errno == ENOENT || error.errno == EFBIG { return nil }
            throw CNIError(error)
        }
    }

    private func write(_ path: String, _ text: String) throws(CNIError) {
        try CNIError.from { () throws(KernelError) in
            // Some filesystems are slow at giving back what O_TRUNC takes. A kill in between leaves no lease: those get their
            // names afterwards.
            let file = try File.open(path, O_WRONLY | O_CREAT | O_NOFOLLOW)
            try file.writeAll(text.utf8, subject: path)
            let descriptor = file.raw
            try systemCall("ftruncate", path) { ftruncate(descriptor, off_t(text.utf8.count)) }
        }
    }

    private func locked<Result>(_ body: () throws(CNIError) -> Result) throws(CNIError) -> Result {
        let path = "\(directory)/lock"
        var waited = 0
        while true {
            let lock = try CNIError.from { () throws(KernelError) in try FileLock(path) }
            if let lock {
                defer { withExtendedLifetime(lock) {} }
                return try body()
            }
            guard waited < patience else {
                throw CNIError(
                    code: CNIError.tryAgainLater,
                    message: "\(path) has been locked by another process for \(patience) ms: try again")
            }
            usleep(1000)
            waited += 1
        }
    }
}
