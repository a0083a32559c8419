import JSON
import Model
import Scheduling
import Testing

/// What holds on every node, however its devices are connected and whoever has them.
@Suite struct DevicePlacementProperties {
    /// A node of up to 8 devices with random links, models, health, shares and partitions.
    private static func devices(_ random: inout SeededNumbers) -> [NodeDevice] {
        let number = Int.random(in: 0...8, using: &random)
        var devices = (0..<number).map { index in
            Machines.gpu("g\(index)") { device in
                device.model = ["A", "B"].randomElement(using: &random)
                device.memoryBytes = [16, 40, 80].randomElement(using: &random).map { $0 << 30 }
                device.numaNode = [nil, 0, 1].randomElement(using: &random) ?? nil
                if Int.random(in: 0..<8, using: &random) == 0 { device.isGone = true }
                if Int.random(in: 0..<8, using: &random) == 0 { device.isDivided = true }
                if Int.random(in: 0..<4, using: &random) == 0 { device.shares = 3 }
                device.health.state = NodeDevice.Health.State.allCases.randomElement(using: &random) ?? .healthy
                if Int.random(in: 0..<5, using: &random) == 0 {
                    device.parent = "p"
                    device.profile = "1g"
                }
            }
        }
        for first in devices.indices {
            for second in devices.indices where second > first {
                guard Bool.random(using: &random) else { continue }
                let kind = NodeDevice.Link.Kind.allCases.randomElement(using: &random) ?? .system
                let amount = Int.random(in: 1...4, using: &random)
                devices[first].links.append(NodeDevice.Link(to: "g\(second)", kind, amount: amount))
                // Some drivers tell both ways, some one.
                if Bool.random(using: &random) {
                    devices[second].links.append(NodeDevice.Link(to: "g\(first)", kind, amount: amount))
                }
            }
        }
        return devices
    }

    private static func claim(_ random: inout SeededNumbers) -> DeviceClaim {
        var claim = DeviceClaim()
        switch Int.random(in: 0..<6, using: &random) {
        case 0: claim.all = true
        case 1: claim.ids = ["g\(Int.random(in: 0..<8, using: &random))"]
        default: claim.count = Int.random(in: 1...4, using: &random)
        }
        if Int.random(in: 0..<3, using: &random) == 0 { claim.model = ["A", "B", "*"].randomElement(using: &random) }
        if Int.random(in: 0..<3, using: &random) == 0 { claim.memory = 40 << 30 }
        if Int.random(in: 0..<5, using: &random) == 0 { claim.profile = "*g" }
        if !claim.all, Int.random(in: 0..<3, using: &random) == 0 { claim.sharing = .share }
        return claim
    }

    /// Whether the claim may have the device, by a reading of docs/devices.md that is not the scheduler's.
    private static func suits(_ device: NodeDevice, _ claim: DeviceClaim) -> Bool {
        guard !device.isGone, !device.isDivided, device.health.state != .unusable else { return false }
        if !claim.ids.isEmpty, !claim.ids.contains(device.id) { return false }
        if claim.profile == nil, claim.ids.isEmpty, device.parent != nil { return false }
        if claim.profile != nil, device.parent == nil { return false }
        if let model = claim.model, model != "*", device.model != model { return false }
        if let memory = claim.memory, (device.memoryBytes ?? 0) < memory { return false }
        return claim.sharing == .whole || device.shares > 1
    }

    private static func subsets(of all: [String], _ number: Int) -> [[String]] {
        guard number > 0 else { return [[]] }
        guard let first = all.first, all.count >= number else { return [] }
        let rest = Array(all.dropFirst())
        return subsets(of: rest, number - 1).map { [first] + $0 } + subsets(of: rest, number)
    }

    /// Whether some choice of different devices meets all claims; tried out.
    private static func isPossible(_ claims: [DeviceClaim], _ devices: [NodeDevice], used: [String: Int]) -> Bool {
        guard let claim = claims.first else { return true }
        let suiting = devices.filter { suits($0, claim) }
        let free = suiting.filter {
            claim.sharing == .whole ? used[$0.id, default: 0] == 0 : used[$0.id, default: 0] < $0.shares
        }
        if claim.all, suiting.isEmpty || free.count < suiting.count { return false }
        for set in subsets(of: free.map(\.id), claim.wanted ?? free.count) {
            var next = used
            // One pod has each device once.
            for id in set { next[id] = 1000 }
            if isPossible(Array(claims.dropFirst()), devices, used: next) { return true }
        }
        return false
    }

    @Test(arguments: 0..<40)
    func nobodyGetsWhatIsTakenSickOrNotWanted(seed: UInt64) {
        var random = SeededNumbers(seed)
        for _ in 0..<25 {
            let devices = Self.devices(&random)
            var pool = DevicePool(devices)
            var holders: [String: [DeviceClaim.Sharing]] = [:]
            for _ in 0..<6 {
                let claims = (0..<Int.random(in: 1...3, using: &random)).map { _ in Self.claim(&random) }
                let used = holders.mapValues { $0.reduce(0) { $0 + ($1 == .whole ? 1000 : 1) } }
                let possible = Self.isPossible(claims, devices, used: used)
                switch pool.choose(Machines.demanded(claims)) {
                case .lacks(let words):
                    #expect(
                        !possible, "seed \(seed): '\(words)' for \(claims.map(\.expression)) although there is a way")
                case .grants(let grants):
                    #expect(possible)
                    #expect(grants.count == claims.count)
                    #expect(Set(grants.flatMap(\.devices)).count == grants.flatMap(\.devices).count)
                    for (grant, claim) in zip(grants, claims) {
                        #expect(claim.wanted == nil || grant.devices.count == claim.wanted)
                        for id in grant.devices {
                            let device = devices.first { $0.id == id }
                            #expect(device.map { Self.suits($0, claim) } == true, "seed \(seed): \(id)")
                            holders[id, default: []].append(grant.sharing)
                        }
                    }
                    #expect(pool.isFree(grants))
                    pool.take(grants)
                }
            }
            for device in devices {
                let all = holders[device.id] ?? []
                #expect(all.contains(.whole) ? all.count == 1 : all.count <= device.shares, "seed \(seed): \(all)")
            }
        }
    }

    /// The links within a set, by a reading of the links that is not the scheduler's.
    private static func worth(_ set: [String], _ devices: [NodeDevice]) -> Int {
        var sum = 0
        for (index, first) in set.enumerated() {
            for second in set[(index + 1)...] {
                let pair = devices.filter { $0.id == first || $0.id == second }
                let links = pair.flatMap { device in device.links.filter { $0.to != device.id && set.contains($0.to) } }
                    .filter { $0.to == first || $0.to == second }
                let values = links.map { link -> Int in
                    switch link.kind {
                    case .nvlink, .nvswitch: link.amount * 100_000
                    case .xgmi: 1_500_000 / link.amount
                    case .board: 6
                    case .singleSwitch: 5
                    case .switches: 4
                    case .hostBridge: 3
                    case .node: 2
                    case .system: 1
                    }
                }
                let isSameNUMA = pair[0].numaNode != nil && pair[0].numaNode == pair[1].numaNode
                sum += max(values.max() ?? 1, isSameNUMA ? 2 : 1)
            }
        }
        return sum
    }

    @Test(arguments: 100..<130)
    func noOtherSetIsBetterConnected(seed: UInt64) {
        var random = SeededNumbers(seed)
        for _ in 0..<20 {
            let devices = Self.devices(&random).map { device in
                var device = device
                device.health = .init()
                return device
            }
            let number = Int.random(in: 2...4, using: &random)
            let suiting = devices.filter { Self.suits($0, DeviceClaim(count: number)) }.map(\.id)
            guard case .grants(let grants) = DevicePool(devices).choose(Machines.demanded([DeviceClaim(count: number)]))
            else {
                #expect(suiting.count < number)
                continue
            }
            let best = Self.subsets(of: suiting, number).map { Self.worth($0, devices) }.max()
            #expect(best == Self.worth(grants[0].devices, devices), "seed \(seed)")
        }
    }

    /// Placing the same on the same cluster gives the same, so that a run can be repeated.
    @Test func choicesDependOnNothingElse() {
        var random = SeededNumbers(11)
        for _ in 0..<50 {
            let devices = Self.devices(&random)
            let claims = Machines.demanded([Self.claim(&random), Self.claim(&random)])
            #expect(DevicePool(devices).choose(claims) == DevicePool(devices).choose(claims))
        }
    }
}
