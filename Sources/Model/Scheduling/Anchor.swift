import Model

/// What ties all pods that have it to one node.
package enum Anchor: Sendable, Hashable {
    /// A named volume: its data is on one node.
    case volume(String)
    /// A network that users made, with the driver `bridge`.
    case network(NetworkID)
    /// A container whose namespaces are shared.
    case container(ContainerID)

    /// Whether the first pod that is placed decides; of the others it is known, or nothing fits.
    var isFree: Bool {
        if case .container = self { false } else { true }
    }
}

/// Where an anchor is.
struct AnchorFilter: Filter {
    let anchor: Anchor
    /// As people know it; nil: by its name or id.
    let name: String?
    /// nil: on no node yet.
    let home: NodeID?
    let homeName: String
    let isReachable: Bool

    func check(_ node: NodeSnapshot) -> Bool { node.node.id == home }

    func explain() -> String {
        // Of the others, one that has no name does not exist any more.
        if case .container(let id) = anchor, name == nil { return "container \(id) (it has been removed)" }
        let place =
            home == nil ? "on no node yet" : "on \(homeName)\(isReachable ? "" : ", which is unreachable")"
        return switch anchor {
        case .volume(let volume): "volume \(volume) (its data is \(place))"
        case .network(let id): "network \(name ?? id.text) (it is \(place))"
        case .container(let id): "container \(name ?? id.text) (it is \(place))"
        }
    }
}
