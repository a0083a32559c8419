import CNISpec
import Model

/// The addresses of one overlay: which are in use, and which node leases which block of them.
///
/// An address is a number here, its distance from the subnet's first; a pod's IPv4 and IPv6 address have the same one
/// unless a user fixed both. The subnet is cut into blocks of half of its host bits, at most 64 numbers. A block is
/// leased by a node from the first address to the last that the node's tasks have out of it. All of this follows from the
/// addresses that tasks have: `insert` and `remove` in any order lead to the same.
struct AddressBlocks: Sendable {
    let network: NetworkID
    let subnet: CIDR
    let subnet6: CIDR?
    /// Bits of a number within its block: 1…6.
    private let bits: Int
    /// Numbers that may be given, but for `excluded`: a network's range, without its first and last address.
    private let numbers: ClosedRange<Int>
    /// Gateways and reserved addresses, by block.
    private let excluded: [Int: UInt64]
    /// How many numbers may be given.
    let capacity: Int
    /// How many of these are in use, or fixed for somebody.
    private(set) var taken = 0
    /// How many addresses tasks have left that their nodes have not let go of.
    private(set) var left = 0
    /// How many numbers are kept for those who ask for them, and used by nobody.
    var kept: Int {
        fixed.keys.count { number in
            usable(number >> bits) & bit(number) & ~(blocks[number >> bits]?.used ?? 0) != 0
        }
    }

    private var blocks: [Int: Block] = [:]
    private var shares: [NodeID: Share] = [:]
    /// By how many tasks more than one a number is held: for moments only, while a draft is undone.
    private var repeated: [Int: Int] = [:]
    /// Numbers that pods ask for, with how many do: nobody gets them by chance.
    private var fixed: [Int: Int] = [:]
    /// IPv6 addresses that users fixed beyond the numbers of IPv4, with how many tasks have them.
    private var far: [UInt128: Int] = [:]
    /// Blocks in which something is in use or fixed, or which are leased.
    private var touched = NumberSet()
    private var leased = NumberSet()
    /// Blocks in which nothing is free.
    private var full = NumberSet()
    private var lastLeased: Int
    private var lastBorrowed: Int

    private struct Block {
        var used: UInt64 = 0
        var fixed: UInt64 = 0
        /// One, but for moments while a draft is undone.
        var lessees: [(node: NodeID, addresses: Int)] = []

        var isEmpty: Bool { used == 0 && fixed == 0 && lessees.isEmpty }
    }

    /// What a node has.
    private struct Share {
        /// In order.
        var blocks: [Int] = []
        /// Addresses that are not out of a leased block, with how many tasks have them.
        var exceptions: [IPAddress: Int] = [:]
        var tasks = 0
        /// The number out of a leased block that came last.
        var last = 0
    }

    /// nil: it is no overlay, or its subnet cannot be read.
    init?(_ network: Network) {
        guard network.isOverlay, let subnet = CIDR(network.subnet), subnet.address.family == .v4,
            (8...29).contains(subnet.prefixLength)
        else { return nil }
        self.network = network.id
        self.subnet = subnet
        subnet6 = CIDR(network.subnet6)
        let hostBits = 32 - subnet.prefixLength
        let bits = min(6, hostBits / 2)
        self.bits = bits
        let part = CIDR(network.range) ?? subnet
        let first = subnet.first.value
        guard subnet.contains(part) else { return nil }
        let lowest = max(1, Int(part.first.value - first))
        let highest = min(Int(part.last.value - first), 1 << hostBits - 2)
        guard lowest <= highest else { return nil }
        let numbers = lowest...highest
        self.numbers = numbers
        var excluded: [Int: UInt64] = [:]
        for text in [network.gateway, network.gateway6] + network.reserved.values {
            guard let number = Self.number(text, subnet, subnet6), number < 1 << hostBits else { continue }
            excluded[Int(number) >> bits, default: 0] |= 1 << UInt64(Int(number) & (1 << bits - 1))
        }
        self.excluded = excluded
        lastLeased = numbers.lowerBound >> bits - 1
        lastBorrowed = lastLeased
        var capacity = numbers.count
        for (block, mask) in excluded { capacity -= (mask & Self.mask(of: block, bits, numbers)).nonzeroBitCount }
        self.capacity = capacity
        for block in [numbers.lowerBound >> bits, numbers.upperBound >> bits] + excluded.keys {
            full[block] = usable(block) == 0
        }
    }

    // MARK: Numbers

    private static func number(_ text: String, _ subnet: CIDR, _ subnet6: CIDR?) -> UInt128? {
        guard let address = IPAddress(text) else { return nil }
        for subnet in [subnet, subnet6].compactMap({ $0 }) where subnet.contains(address) {
            return address.value - subnet.first.value
        }
        return nil
    }

    /// An address's distance from the first of its subnet; nil: it is of neither.
    func number(of address: IPAddress) -> UInt128? {
        for subnet in [subnet, subnet6].compactMap({ $0 }) where subnet.contains(address) {
            return address.value - subnet.first.value
        }
        return nil
    }

    /// The number as one that an IPv4 address may have; nil: it is beyond.
    private func near(_ number: UInt128) -> Int? {
        number >> UInt128(32 - subnet.prefixLength) == 0 ? Int(number) : nil
    }

    /// Bits of a block that lie in the range.
    private static func mask(of block: Int, _ bits: Int, _ numbers: ClosedRange<Int>) -> UInt64 {
        let first = block << bits
        let lowest = max(numbers.lowerBound, first) - first
        let highest = min(numbers.upperBound, first + (1 << bits) - 1) - first
        guard lowest <= highest else { return 0 }
        return (~0 << UInt64(lowest)) & (~0 >> UInt64(63 - highest))
    }

    private func usable(_ block: Int) -> UInt64 {
        Self.mask(of: block, bits, numbers) & ~(excluded[block] ?? 0)
    }

    private func bit(_ number: Int) -> UInt64 { 1 << UInt64(number & (1 << bits - 1)) }

    private func free(_ block: Int) -> UInt64 {
        guard let present = blocks[block] else { return usable(block) }
        return usable(block) & ~present.used & ~present.fixed
    }

    private mutating func change(_ index: Int, _ body: (inout Block) -> Void) {
        let usable = usable(index)
        var block = blocks.removeValue(forKey: index) ?? Block()
        let before = ((block.used | block.fixed) & usable).nonzeroBitCount
        body(&block)
        taken += ((block.used | block.fixed) & usable).nonzeroBitCount - before
        full[index] = usable & ~block.used & ~block.fixed == 0
        leased[index] = !block.lessees.isEmpty
        touched[index] = !block.isEmpty
        if !block.isEmpty { blocks[index] = block }
    }

    // MARK: What tasks have

    private struct Holding {
        /// IPv4.
        var number: Int
        /// IPv6; nil: none, or the same.
        var other: UInt128?
        var addresses: [IPAddress]
    }

    private func holding(_ assigned: AssignedAddress) -> Holding? {
        guard let address = IPAddress(assigned.address), subnet.contains(address) else { return nil }
        let number = Int(address.value - subnet.first.value)
        guard let address6 = IPAddress(assigned.address6), let number6 = self.number(of: address6) else {
            return Holding(number: number, addresses: [address])
        }
        return Holding(
            number: number, other: number6 == UInt128(number) ? nil : number6, addresses: [address, address6])
    }

    /// A task on the node has the address.
    mutating func insert(_ assigned: AssignedAddress, on node: NodeID) {
        guard let holding = holding(assigned) else { return }
        use(holding.number)
        if let other = holding.other {
            if let near = near(other) { use(near) } else { far[other, default: 0] += 1 }
        }
        if assigned.leftAt != nil { left += 1 }
        var share = shares.removeValue(forKey: node) ?? Share()
        share.tasks += 1
        if assigned.isLeased {
            share.last = holding.number
            lease(holding.number >> bits, &share, node)
        }
        for address in exceptions(of: holding, assigned) { share.exceptions[address, default: 0] += 1 }
        shares[node] = share
    }

    /// It has it no more.
    mutating func remove(_ assigned: AssignedAddress, on node: NodeID) {
        guard let holding = holding(assigned), var share = shares.removeValue(forKey: node) else { return }
        release(holding.number)
        if let other = holding.other {
            if let near = near(other) { release(near) } else { Self.decrease(&far, other) }
        }
        if assigned.leftAt != nil { left -= 1 }
        share.tasks -= 1
        if assigned.isLeased { giveBack(holding.number >> bits, &share, node) }
        for address in exceptions(of: holding, assigned) { Self.decrease(&share.exceptions, address) }
        if share.tasks > 0 { shares[node] = share }
    }

    /// Which of its addresses other nodes have to know one by one.
    private func exceptions(of holding: Holding, _ assigned: AssignedAddress) -> ArraySlice<IPAddress> {
        guard assigned.isLeased else { return holding.addresses[...] }
        return holding.other == nil ? [] : holding.addresses.dropFirst()
    }

    private static func decrease<Key>(_ counts: inout [Key: Int], _ key: Key) {
        guard let count = counts[key] else { return }
        counts[key] = count > 1 ? count - 1 : nil
    }

    private mutating func use(_ number: Int) {
        let bit = bit(number)
        if blocks[number >> bits].map({ $0.used & bit != 0 }) ?? false {
            repeated[number, default: 0] += 1
        } else {
            change(number >> bits) { $0.used |= bit }
        }
    }

    private mutating func release(_ number: Int) {
        let bit = bit(number)
        if repeated[number] != nil {
            Self.decrease(&repeated, number)
        } else {
            change(number >> bits) { $0.used &= ~bit }
        }
    }

    private mutating func lease(_ index: Int, _ share: inout Share, _ node: NodeID) {
        if let place = blocks[index]?.lessees.firstIndex(where: { $0.node == node }) {
            blocks[index]?.lessees[place].addresses += 1
            return
        }
        lastLeased = index
        change(index) { $0.lessees.append((node, 1)) }
        share.blocks.insert(index, at: share.blocks.firstIndex { $0 > index } ?? share.blocks.endIndex)
    }

    private mutating func giveBack(_ index: Int, _ share: inout Share, _ node: NodeID) {
        guard let place = blocks[index]?.lessees.firstIndex(where: { $0.node == node }) else { return }
        blocks[index]?.lessees[place].addresses -= 1
        guard blocks[index]?.lessees[place].addresses == 0 else { return }
        change(index) { $0.lessees.remove(at: place) }
        share.blocks.removeAll { $0 == index }
    }

    /// A pod asks for the address, whether it has it yet or not; `isFixed` false: it does so no more.
    mutating func setFixed(_ address: IPAddress, _ isFixed: Bool) {
        guard let number = number(of: address).flatMap({ near($0) }) else { return }
        let before = fixed[number] ?? 0
        if isFixed { fixed[number] = before + 1 } else { Self.decrease(&fixed, number) }
        guard (fixed[number] ?? 0 > 0) != (before > 0) else { return }
        let bit = bit(number)
        change(number >> bits) { $0.fixed ^= bit }
    }

    // MARK: Giving

    /// Addresses that a task on the node can have; nil: none is free.
    ///
    /// Out of the node's own blocks first, the next after the last that it was given; then out of a block that nobody
    /// leases; then out of another node's.
    func next(on node: NodeID) -> AssignedAddress? {
        guard taken < capacity else { return nil }
        if let number = own(of: node) { return assigned(number, isLeased: true) }
        let range = (numbers.lowerBound >> bits)...(numbers.upperBound >> bits)
        let fresh =
            NumberSet.firstInNone(of: [touched, full], in: range, from: lastLeased + 1)
            ?? NumberSet.firstInNone(of: [leased, full], in: range, from: lastLeased + 1)
        if let fresh { return first(in: fresh).map { assigned($0, isLeased: true) } }
        let lent = NumberSet.firstInNone(of: [full], in: range, from: lastBorrowed + 1)
        return lent.flatMap { first(in: $0) }.map { assigned($0, isLeased: false) }
    }

    private func own(of node: NodeID) -> Int? {
        guard let share = shares[node], !share.blocks.isEmpty else { return nil }
        let last = share.last
        // Those of the last one's block that follow it, then all other blocks, then what lies before it.
        let start = share.blocks.firstIndex { $0 >= last >> bits } ?? 0
        let isLast = share.blocks[start] == last >> bits
        if isLast, let found = first(in: last >> bits, from: last & (1 << bits - 1) + 1) { return found }
        for step in (isLast ? 1 : 0)...share.blocks.count {
            if let found = first(in: share.blocks[(start + step) % share.blocks.count]) { return found }
        }
        return nil
    }

    /// The first number of a block that is free; `from` counts within the block.
    private func first(in block: Int, from: Int = 0) -> Int? {
        let free = free(block) & (~0 << UInt64(from))
        return free == 0 ? nil : block << bits + free.trailingZeroBitCount
    }

    private func assigned(_ number: Int, isLeased: Bool) -> AssignedAddress {
        AssignedAddress(
            network: network, address: text(UInt128(number), subnet),
            address6: subnet6.map { text(UInt128(number), $0) } ?? "", isLeased: isLeased)
    }

    private func text(_ number: UInt128, _ subnet: CIDR) -> String {
        "\(IPAddress(subnet.address.family, subnet.first.value + number))"
    }

    /// Whether a gateway or something else that no task gets has the address or one of the same number.
    func isReserved(_ address: IPAddress) -> Bool {
        guard let number = number(of: address) else { return true }
        guard let near = near(number) else { return false }
        return near == 0 || near == 1 << (32 - subnet.prefixLength) - 1
            || (excluded[near >> bits] ?? 0) & bit(near) != 0
    }

    /// Whether a task has the address or one of the same number.
    func isUsed(_ address: IPAddress) -> Bool {
        guard let number = number(of: address) else { return false }
        guard let near = near(number) else { return far[number] != nil }
        return (blocks[near >> bits]?.used ?? 0) & bit(near) != 0
    }

    /// Whether one of a task's addresses has the number of this one.
    func isSame(_ assigned: AssignedAddress, _ address: IPAddress) -> Bool {
        guard let number = number(of: address) else { return false }
        return [assigned.address, assigned.address6].contains {
            IPAddress($0).flatMap { self.number(of: $0) } == number
        }
    }

    /// The addresses of a task that has asked for one or both; nil: none is free for the other.
    ///
    /// With a wish for IPv6 alone, IPv4 has the same number where that is one to be given.
    ///
    /// - Precondition: what is asked for is of the subnets, and not used.
    func wanted(_ address: IPAddress?, _ address6: IPAddress?, on node: NodeID) -> AssignedAddress? {
        guard let address else {
            guard let address6, let number = number(of: address6) else { return next(on: node) }
            var given: AssignedAddress
            if let near = near(number), usable(near >> bits) & bit(near) != 0 {
                given = assigned(near, isLeased: isLessee(node, of: near >> bits))
            } else {
                guard let other = next(on: node) else { return nil }
                given = other
            }
            given.address6 = "\(address6)"
            return given
        }
        guard let near = number(of: address).flatMap({ near($0) }) else { return nil }
        var given = assigned(near, isLeased: isLessee(node, of: near >> bits))
        if let address6 { given.address6 = "\(address6)" }
        return given
    }

    private func isLessee(_ node: NodeID, of block: Int) -> Bool {
        blocks[block]?.lessees.contains { $0.node == node } ?? false
    }

    // MARK: Who has what

    /// Whether no task has an address.
    var isUnused: Bool { shares.isEmpty }
    /// In no order.
    var nodes: some Collection<NodeID> { shares.keys }

    func isPresent(on node: NodeID) -> Bool { shares[node] != nil }

    func tasks(on node: NodeID) -> Int { shares[node]?.tasks ?? 0 }

    /// What a node has: the blocks that it leases, in order, and addresses beside them; nil: it is not on the network.
    func part(of node: NodeID) -> (blocks: [Int], exceptions: [IPAddress])? {
        guard let share = shares[node] else { return nil }
        let exceptions = share.exceptions.keys.filter { address in
            guard let number = number(of: address).flatMap({ near($0) }) else { return true }
            return !isLessee(node, of: number >> bits)
        }
        return (share.blocks, exceptions.sorted())
    }

    /// The CIDRs of blocks, those of IPv4 first.
    func texts(of blocks: [Int]) -> [String] {
        [subnet, subnet6].compactMap { $0 }.flatMap { subnet in
            blocks.map { "\(text(UInt128($0 << bits), subnet))/\(subnet.address.family.bits - bits)" }
        }
    }
}
