import CNISpec
import Model

/// Which parts of the address space are somebody's: subnets of networks, and the addresses of nodes. Subnets never
/// overlap, so that whoever has an address is found by halving.
struct AddressPools: Sendable {
    private struct Entry: Sendable {
        let first: IPAddress
        let last: IPAddress
        let network: NetworkID
    }

    /// In the order of their first addresses.
    private var subnets: [Entry] = []
    /// In order.
    private var hosts: [(address: IPAddress, node: NodeID)] = []
    private var networkByVNI: [Int: NetworkID] = [:]
    /// All from `Self.firstVNI` up to this are somebody's.
    private var firstFreeVNI = Self.firstVNI
    /// All pieces up to this one are somebody's.
    private var firstFreePiece = 0

    /// The first number that is chosen for a network that names none.
    private static let firstVNI = 4096
    /// Where subnets of overlays that name none are from: 1024 of 10.64.0.0/10.
    private static let pieceBits: UInt128 = 12
    private static let pool: UInt128 = 10 << 24 | 64 << 16
    private static let pieces = 1024
    /// What people call them.
    static let poolTitle = "the \(pieces) subnets of 10.64.0.0/10"

    // MARK: Following the objects

    mutating func insert(_ network: Network) {
        for subnet in network.subnets {
            let entry = Entry(first: subnet.first, last: subnet.last, network: network.id)
            subnets.insert(entry, at: place(of: entry.first))
        }
        // As with names, the last one counts: an undone draft brings objects back in any order.
        if let vni = network.vni { networkByVNI[vni] = network.id }
        skipTaken()
    }

    mutating func remove(_ network: Network) {
        for subnet in network.subnets {
            var index = place(of: subnet.first)
            while index < subnets.count, subnets[index].first == subnet.first {
                if subnets[index].network == network.id {
                    subnets.remove(at: index)
                    break
                }
                index += 1
            }
            setFree(subnet.first)
        }
        guard let vni = network.vni, networkByVNI[vni] == network.id else { return }
        networkByVNI[vni] = nil
        if vni >= Self.firstVNI { firstFreeVNI = min(firstFreeVNI, vni) }
    }

    mutating func insert(_ node: Node) {
        guard let address = IPAddress(node.address) else { return }
        hosts.insert((address, node.id), at: hostPlace(of: address))
        skipTaken()
    }

    private mutating func skipTaken() {
        while networkByVNI[firstFreeVNI] != nil { firstFreeVNI += 1 }
        while firstFreePiece < Self.pieces, let piece = Self.piece(firstFreePiece), !isFree(piece) {
            firstFreePiece += 1
        }
    }

    mutating func remove(_ node: Node) {
        guard let address = IPAddress(node.address) else { return }
        var index = hostPlace(of: address)
        while index < hosts.count, hosts[index].address == address {
            if hosts[index].node == node.id {
                hosts.remove(at: index)
                break
            }
            index += 1
        }
        setFree(address)
    }

    /// What begins or lies here is free: subnets may be chosen from there again.
    private mutating func setFree(_ address: IPAddress) {
        guard address.family == .v4 else { return }
        // What began before them may have covered some.
        let piece = address.value < Self.pool ? 0 : Int((address.value - Self.pool) >> Self.pieceBits)
        firstFreePiece = min(firstFreePiece, piece)
    }

    // MARK: Looking

    private func place(of address: IPAddress) -> Int {
        Self.partition(subnets.count) { subnets[$0].first < address }
    }

    private func hostPlace(of address: IPAddress) -> Int {
        Self.partition(hosts.count) { hosts[$0].address < address }
    }

    /// The first index for which `isBefore` does not hold; it holds for all before that.
    private static func partition(_ count: Int, _ isBefore: (Int) -> Bool) -> Int {
        var (low, high) = (0, count)
        while low < high {
            let middle = (low + high) / 2
            if isBefore(middle) { low = middle + 1 } else { high = middle }
        }
        return low
    }

    /// A network that has addresses of the subnet.
    func network(overlapping subnet: CIDR) -> NetworkID? {
        let index = place(of: subnet.first)
        if index < subnets.count, subnets[index].first <= subnet.last { return subnets[index].network }
        guard index > 0, subnets[index - 1].last >= subnet.first, subnets[index - 1].first.family == subnet.first.family
        else { return nil }
        return subnets[index - 1].network
    }

    /// All nodes that have the address.
    func nodes(at address: IPAddress) -> [NodeID] {
        hosts[hostPlace(of: address)...].prefix { $0.address == address }.map(\.node)
    }

    /// A node whose address is in the subnet.
    func node(in subnet: CIDR) -> NodeID? {
        let index = hostPlace(of: subnet.first)
        return index < hosts.count && hosts[index].address <= subnet.last ? hosts[index].node : nil
    }

    func network(withVNI vni: Int) -> NetworkID? { networkByVNI[vni] }

    // MARK: Choosing

    private static func piece(_ number: Int) -> CIDR? {
        CIDR(IPAddress(.v4, pool + UInt128(number) << pieceBits), prefixLength: 32 - Int(pieceBits))
    }

    func isFree(_ subnet: CIDR) -> Bool { network(overlapping: subnet) == nil && node(in: subnet) == nil }

    /// A free subnet for an overlay; nil: there is none.
    func freeSubnet() -> CIDR? {
        (firstFreePiece..<Self.pieces).lazy.compactMap { Self.piece($0) }.first { isFree($0) }
    }

    /// A free unique local subnet, see RFC 4193; nil: none was found.
    func freeSubnet6(_ random: inout some RandomNumberGenerator) -> CIDR? {
        for _ in 0..<16 {
            // fd, and 56 random bits.
            let prefix = UInt128(0xfd) << 56 | UInt128(UInt64.random(in: 0..<1 << 56, using: &random))
            if let subnet = CIDR(IPAddress(.v6, prefix << 64), prefixLength: 64), isFree(subnet) { return subnet }
        }
        return nil
    }

    /// The lowest free number from 4096 on, or below; nil: there is none.
    func freeVNI() -> Int? {
        if firstFreeVNI <= Network.vnis.upperBound { return firstFreeVNI }
        return (Network.vnis.lowerBound..<Self.firstVNI).first { networkByVNI[$0] == nil }
    }
}

extension Network {
    /// What it has of each family, as networks.
    fileprivate var subnets: [CIDR] { [subnet, subnet6].compactMap { CIDR($0) } }
}
