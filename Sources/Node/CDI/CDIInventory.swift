import CDISpec

/// The devices that specifications describe, as they were when their directories were last looked at.
package struct CDIInventory: Sendable, Equatable {
    /// One file.
    struct Source: Sendable, Equatable {
        /// Absolute.
        let path: String
        /// That of its directory: the later in the list, the higher.
        let priority: Int
        /// nil: it is not valid now.
        let specification: CDISpecification?
        /// Those that it had when it was valid last.
        let names: Set<CDIName>
        /// Why it is not valid, one sentence.
        let problem: String?
    }

    /// A device that can be asked for.
    package struct Entry: Sendable, Equatable {
        package let device: CDIDevice
        /// The file that it is from.
        package let file: String
    }

    let sources: [Source]
    private let places: [CDIName: (source: Int, device: Int)]
    /// Devices that there are, but that cannot be asked for, with the reason: one sentence with the files in it.
    package let unresolvable: [CDIName: String]
    /// What is wrong with directories, files and devices, one sentence each.
    package let warnings: [String]

    /// Nothing.
    package init() { self.init([], warnings: []) }

    /// - Parameter warnings: what is wrong beside the files themselves.
    init(_ sources: [Source], warnings: [String]) {
        var claims: [CDIName: [Int]] = [:]
        for (index, source) in sources.enumerated() {
            for name in source.names {
                guard let best = claims[name]?.first.map({ sources[$0].priority }), best >= source.priority else {
                    claims[name] = [index]
                    continue
                }
                if best == source.priority { claims[name, default: []].append(index) }
            }
        }
        var places: [CDIName: (source: Int, device: Int)] = [:]
        var unresolvable: [CDIName: String] = [:]
        var conflicts: [[Int]: [CDIName]] = [:]
        for (name, claimants) in claims {
            guard claimants.count == 1, let index = claimants.first else {
                let files = claimants.map { sources[$0].path }.sorted().joined(separator: " and ")
                unresolvable[name] = "the CDI device \(name) is in \(files): remove it from all but one of them"
                conflicts[claimants, default: []].append(name)
                continue
            }
            let source = sources[index]
            if let device = source.specification?.devices.firstIndex(where: { $0.name == name.device }) {
                places[name] = (index, device)
            } else {
                unresolvable[name] =
                    "the CDI device \(name) was in \(source.path), which is not valid now: \(source.problem ?? "")"
            }
        }
        self.sources = sources
        self.places = places
        self.unresolvable = unresolvable
        let broken = sources.compactMap { source in
            source.problem.map { "the CDI specification \(CDIFile.line(source.path)) is not used: \($0)" }
        }
        let twice = conflicts.map { claimants, names in
            let files = claimants.map { sources[$0].path }.sorted().joined(separator: " and ")
            let some = names.sorted().prefix(8).map(\.description).joined(separator: ", ")
            let rest = names.count > 8 ? " and \(names.count - 8) more" : ""
            return "CDI devices are in \(files) and cannot be used: \(some)\(rest)"
        }
        self.warnings = warnings + broken + twice.sorted()
    }

    /// Those that can be asked for, sorted.
    package var names: [CDIName] { places.keys.sorted() }

    /// A device that can be asked for.
    package subscript(name: CDIName) -> Entry? {
        guard let place = places[name], let specification = sources[place.source].specification else { return nil }
        return Entry(device: specification.devices[place.device], file: sources[place.source].path)
    }

    package static func == (left: CDIInventory, right: CDIInventory) -> Bool {
        // The rest follows from these.
        left.sources == right.sources && left.warnings == right.warnings
    }

    /// The edits of devices, in their order: before the first of a specification those that go for all of it. A device
    /// that is named twice counts once.
    ///
    /// - Throws: `CDIError` that names what is not there, with what is wrong with the files.
    package func edits(of names: [CDIName]) throws(CDIError) -> CDIEdits {
        var edits = CDIEdits()
        var opened: Set<Int> = []
        var given: Set<CDIName> = []
        for name in names where given.insert(name).inserted {
            guard let place = places[name], let specification = sources[place.source].specification else {
                throw CDIError(reason(without: name))
            }
            if opened.insert(place.source).inserted { edits.append(specification.edits) }
            edits.append(specification.devices[place.device].edits)
        }
        return edits
    }

    /// Why a device cannot be asked for.
    private func reason(without name: CDIName) -> String {
        if let reason = unresolvable[name] { return reason }
        let wrong = warnings.isEmpty ? "" : "; \(warnings.prefix(4).joined(separator: "; "))"
        let same = self.names.filter { $0.kind == name.kind }
        guard !same.isEmpty else {
            let kinds = Set(self.names.map { $0.kind.description }).sorted()
            let known = kinds.isEmpty ? "none" : kinds.prefix(16).joined(separator: ", ")
            return "this node has no CDI devices \(name.kind), only of the kinds: \(known)\(wrong)"
        }
        let known = same.prefix(16).map(\.device).joined(separator: ", ")
        let more = same.count > 16 ? " and \(same.count - 16) more" : ""
        return "this node has no CDI device \(name), of \(name.kind) there are: \(known)\(more)\(wrong)"
    }
}
