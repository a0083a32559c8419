import Model

/// One claim of a pod, with where in the pod it stands.
package struct DemandedDevices: Sendable, Hashable {
    /// The container's name.
    package var container: String
    /// Which of its claims.
    package var index: Int
    package var claim: DeviceClaim

    package init(container: String, index: Int, claim: DeviceClaim) {
        self.container = container
        self.index = index
        self.claim = claim
    }

    /// All claims of the pod, in order.
    package static func all(of pod: PodSpec) -> [DemandedDevices] {
        pod.containers.flatMap { container in
            container.deviceClaims.enumerated().map {
                DemandedDevices(container: container.name, index: $0.offset, claim: $0.element)
            }
        }
    }
}

/// The devices of one node, and how much of each is taken.
package struct DevicePool: Sendable {
    /// As the node reports them.
    package let devices: [NodeDevice]
    /// Shares that somebody has, by the device's place; all of them when somebody has it whole.
    private var used: [Int]
    private let places: [String: Int]
    /// Of each place those of the whole that it is a part of, and of its parts: who has one has them too.
    private let relatives: [Int: [Int]]
    /// Whether work without claims is better kept off the node.
    package let isScarce: Bool

    /// - Parameter holders: by id, how each task that has the device has it. Ids that the node does not report count for
    ///   nothing.
    package init(_ devices: [NodeDevice] = [], holders: [String: [DeviceClaim.Sharing]] = [:]) {
        self.devices = devices
        let places = Dictionary(devices.enumerated().map { ($1.id, $0) }, uniquingKeysWith: { first, _ in first })
        self.places = places
        var relatives: [Int: [Int]] = [:]
        for (part, device) in devices.enumerated() {
            guard let whole = device.parent.flatMap({ places[$0] }) else { continue }
            relatives[part, default: []].append(whole)
            relatives[whole, default: []].append(part)
        }
        self.relatives = relatives
        used = Array(repeating: 0, count: devices.count)
        isScarce = devices.contains(where: \.isScarce)
        for (id, sharings) in holders { take(id, sharings) }
    }

    /// Notes that tasks have the device in these ways.
    package mutating func take(_ id: String, _ sharings: [DeviceClaim.Sharing]) {
        guard let place = places[id] else { return }
        for sharing in sharings { take(place, sharing) }
    }

    private mutating func take(_ place: Int, _ sharing: DeviceClaim.Sharing) {
        used[place] = sharing == .whole ? devices[place].shares : min(devices[place].shares, used[place] + 1)
        for relative in relatives[place] ?? [] { used[relative] = devices[relative].shares }
    }

    /// Notes that somebody has these now.
    package mutating func take(_ grants: [DeviceGrant]) {
        for grant in grants {
            for id in grant.devices { if let place = places[id] { take(place, grant.sharing) } }
        }
    }

    /// Whether the devices of the grants can be given as they are.
    package func isFree(_ grants: [DeviceGrant]) -> Bool {
        grants.allSatisfy { grant in
            grant.devices.allSatisfy { id in
                places[id].map { devices[$0].isGrantable && isFree($0, grant.sharing) } ?? false
            }
        }
    }

    private func isFree(_ place: Int, _ sharing: DeviceClaim.Sharing) -> Bool {
        sharing == .whole ? used[place] == 0 : used[place] < devices[place].shares
    }

    /// The NUMA nodes of what was granted.
    package func places(of grants: [DeviceGrant]) -> Set<Int> {
        Set(grants.flatMap { $0.devices.compactMap { id in places[id].flatMap { devices[$0].numaNode } } })
    }

    // MARK: Choosing

    package enum Fit: Sendable, Hashable {
        /// One for each claim, in their order.
        case grants([DeviceGrant])
        /// What is wanting, in a few words.
        case lacks(String)
    }

    /// Why the claims could not be met here even if nobody had any of the devices; nil: they could.
    package func shortage(for demanded: [DemandedDevices]) -> String? {
        var candidates: [[Int]] = []
        for demand in demanded {
            switch places(for: demand.claim) {
            case .failure(let lack): return lack.words
            case .success(let places): candidates.append(places)
            }
        }
        guard demanded.count > 1 else { return nil }
        return matched(demanded, candidates) == nil ? "fewer gpus than all claims want" : nil
    }

    /// Chooses the devices for each claim: no device for two of them, and none that is taken.
    ///
    /// - Parameter avoided: ids that will do only when there are no others.
    package func choose(_ demanded: [DemandedDevices], avoiding avoided: Set<String> = []) -> Fit {
        if let words = shortage(for: demanded) { return .lacks(words) }
        var candidates: [[Int]] = []
        for demand in demanded {
            guard case .success(let places) = places(for: demand.claim) else { return .lacks("gpu") }
            let free = places.filter { isFree($0, demand.claim.sharing) }
            guard free.count >= demand.claim.wanted ?? places.count else {
                return .lacks(Self.taken(demand.claim, free: free.count))
            }
            candidates.append(free)
        }
        var chosen: [[Int]] = Array(repeating: [], count: demanded.count)
        var gone: Set<Int> = []
        // Those with the least choice first.
        for number in demanded.indices.sorted(by: { (candidates[$0].count, $0) < (candidates[$1].count, $1) }) {
            let claim = demanded[number].claim
            let left = candidates[number].filter { !gone.contains($0) }
            guard left.count >= claim.wanted ?? candidates[number].count else {
                // Another claim took what only this one can use: any way to meet all will do.
                guard let way = matched(demanded, candidates) else {
                    return .lacks(Self.taken(claim, free: left.count))
                }
                return .grants(grants(demanded, way))
            }
            let choice = DeviceChoice(
                pool: self, candidates: left, beside: freePlaces.subtracting(gone), sharing: claim.sharing,
                avoided: avoided)
            chosen[number] = choice.best(claim.wanted ?? left.count)
            gone.formUnion(chosen[number])
        }
        return .grants(grants(demanded, chosen))
    }

    private func grants(_ demanded: [DemandedDevices], _ chosen: [[Int]]) -> [DeviceGrant] {
        zip(demanded, chosen).map { demand, places in
            DeviceGrant(
                container: demand.container, claim: demand.index, devices: places.sorted().map { devices[$0].id },
                sharing: demand.claim.sharing)
        }
    }

    private static func taken(_ claim: DeviceClaim, free: Int) -> String {
        free == 0 || claim.wanted == nil ? "gpus taken" : "too few free gpus (\(claim.wanted ?? 0) wanted)"
    }

    private var freePlaces: Set<Int> {
        Set(devices.indices.filter { devices[$0].isGrantable && used[$0] == 0 })
    }

    /// Shares of the device that are taken.
    func use(of place: Int) -> Int { used[place] }

    /// A different device for each thing that the claims want, whichever; nil: there is no such way. (Kuhn's algorithm.)
    private func matched(_ demanded: [DemandedDevices], _ candidates: [[Int]]) -> [[Int]]? {
        var owner: [Int: Int] = [:]
        let slots = demanded.indices.flatMap { number in
            Array(repeating: number, count: demanded[number].claim.wanted ?? candidates[number].count)
        }
        guard slots.count <= devices.count else { return nil }
        func find(_ slot: Int, _ seen: inout Set<Int>) -> Bool {
            for place in candidates[slots[slot]] where seen.insert(place).inserted {
                if let other = owner[place], !find(other, &seen) { continue }
                owner[place] = slot
                return true
            }
            return false
        }
        for slot in slots.indices {
            var seen: Set<Int> = []
            guard find(slot, &seen) else { return nil }
        }
        var result: [[Int]] = Array(repeating: [], count: demanded.count)
        for (place, slot) in owner { result[slots[slot]].append(place) }
        return result
    }
}

/// What a node has too little of, in words.
struct DeviceLack: Error {
    let words: String
}

extension DevicePool {
    /// The places of devices that would do for the claim if nobody had them; the first demand that leaves too few is the
    /// reason why not.
    fileprivate func places(for claim: DeviceClaim) -> Result<[Int], DeviceLack> {
        let least = claim.wanted ?? 1
        let many = least > 1 ? " (\(least) wanted)" : ""
        var left = devices.indices.filter { devices[$0].kind == claim.kind }
        if left.isEmpty { return .failure(DeviceLack(words: "no \(claim.kind)")) }
        if !claim.ids.isEmpty {
            switch named(claim.ids, among: left) {
            case .failure(let lack): return .failure(lack)
            case .success(let places): left = places
            }
        }
        for (demand, holds) in demands(of: claim) {
            left = left.filter { holds(devices[$0]) }
            if left.count < least { return .failure(DeviceLack(words: "\(claim.kind) \(demand)\(many)")) }
        }
        // What a processor brings along is meant only by who names it, or where there is nothing else.
        if claim.vendor == nil, claim.ids.isEmpty {
            let scarce = left.filter { devices[$0].isScarce }
            if scarce.count >= least { left = scarce }
        }
        return .success(left)
    }

    /// The device that each id or alias means.
    private func named(_ ids: [String], among places: [Int]) -> Result<[Int], DeviceLack> {
        var found: [Int] = []
        for id in ids {
            let place = places.first { devices[$0].id == id } ?? places.first { devices[$0].aliases.contains(id) }
            guard let place else { return .failure(DeviceLack(words: "no gpu \(id)")) }
            guard !found.contains(place) else { return .failure(DeviceLack(words: "gpu \(id) named twice")) }
            found.append(place)
        }
        return .success(found)
    }

    /// What the claim asks of each device, in words for who looks for what is wanting.
    private func demands(of claim: DeviceClaim) -> [(String, (NodeDevice) -> Bool)] {
        var demands: [(String, (NodeDevice) -> Bool)] = []
        if let vendor = claim.vendor { demands.append(("vendor \(vendor)", { $0.vendor == vendor })) }
        if let profile = claim.profile {
            let pattern = (try? Pattern(profile)) ?? Pattern(literal: profile)
            demands.append(
                ("profile \(profile)", { $0.parent != nil && pattern.matches($0.profile ?? "") }))
        } else if claim.ids.isEmpty {
            demands.append(("that is whole", { $0.parent == nil }))
        }
        if let model = claim.model {
            let pattern = (try? Pattern(model)) ?? Pattern(literal: model)
            demands.append(("model \(model)", { $0.model.map(pattern.matches) ?? false }))
        }
        if let memory = claim.memory {
            demands.append(
                ("memory>=\(DeviceClaim.text(ofBytes: memory))", { ($0.memoryBytes ?? 0) >= memory }))
        }
        if let driver = claim.driver {
            demands.append(("driver>=\(driver)", { Self.isVersion($0.driverVersion, atLeast: driver) }))
        }
        if let runtime = claim.runtime {
            demands.append(("cuda>=\(runtime)", { Self.isVersion($0.runtimeVersion, atLeast: runtime) }))
        }
        if let capability = claim.capability {
            demands.append(
                ("capability>=\(capability)", { Self.isVersion($0.computeCapability, atLeast: capability) }))
        }
        if claim.sharing == .share { demands.append(("with shares", { $0.shares > 1 })) }
        demands.append(("that is there", { !$0.isGone }))
        demands.append(("in order", { $0.health.state != .unusable }))
        demands.append(("undivided", { !$0.isDivided }))
        return demands
    }

    /// What is no version has to be the same.
    private static func isVersion(_ text: String?, atLeast least: String) -> Bool {
        guard let text else { return false }
        guard let version = DeviceVersion(text), let wanted = DeviceVersion(least) else { return text == least }
        return version >= wanted
    }
}
