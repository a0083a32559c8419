import Model

/// Which containers and images are on which nodes, as far as affinities ask for it.
package struct Company: Sendable {
    /// What an affinity asks for, whether it wants it or not.
    private struct Question: Hashable {
        let label: String
        let value: String

        init(_ affinity: Constraint) {
            label = affinity.label
            value = affinity.value
        }
    }

    private struct Answer {
        let pattern: Pattern
        var nodes: Set<NodeID> = []
    }

    private var answers: [Question: Answer] = [:]
    private var imageNames: [String: [String]] = [:]

    /// - Parameter affinities: what will be asked.
    package init(for affinities: some Sequence<Constraint> = []) {
        for affinity in affinities where answers[Question(affinity)] == nil {
            answers[Question(affinity)] = Answer(pattern: affinity.pattern)
        }
    }

    /// Whether nobody asks.
    package var isIdle: Bool { answers.isEmpty }

    /// Notes what is on a node.
    ///
    /// - Parameters:
    ///   - names: of one container: its name and its id.
    ///   - images: names and ids of its image, or of images that are there without a container.
    package mutating func note(
        names: [String] = [], images: [String] = [], labels: [[String: String]] = [], on node: NodeID
    ) {
        for (question, answer) in answers where !answer.nodes.contains(node) {
            let found =
                switch question.label {
                case "container": names.contains(where: answer.pattern.matches)
                case "image": images.contains { meanings(of: $0).contains(where: answer.pattern.matches) }
                default: labels.contains { $0[question.label].map(answer.pattern.matches) ?? false }
                }
            if found { answers[question]?.nodes.insert(node) }
        }
    }

    /// Whether the node has what the affinity wants, or has it not where that is wanted.
    func meets(_ affinity: Constraint, on node: NodeID) -> Bool {
        let isThere = answers[Question(affinity)]?.nodes.contains(node) ?? false
        return affinity.relation == .equal ? isThere : !isThere
    }

    /// `redis` and `redis:7` for `redis:7`; an id with and without `sha256:`.
    private mutating func meanings(of image: String) -> [String] {
        if let known = imageNames[image] { return known }
        var names = [image]
        if image.hasPrefix("sha256:") {
            names.append(String(image.dropFirst(7)))
        } else if let name = ImageName(image) {
            names += [name.repository] + (name.tagged.map { [$0] } ?? [])
        }
        imageNames[image] = names
        return names
    }
}

/// What is on the node already, or is not.
struct AffinityFilter: Filter {
    let affinity: Constraint
    let company: Company
    func check(_ node: NodeSnapshot) -> Bool { company.meets(affinity, on: node.node.id) }
    func explain() -> String { "affinity \(affinity)" }
}
