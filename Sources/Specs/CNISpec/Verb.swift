/// What a plugin is asked for in `CNI_COMMAND` (CNI specification 1.1, section 2).
package enum CNIVerb: String, Sendable, CaseIterable {
    case add = "ADD"
    case delete = "DEL"
    case check = "CHECK"
    case status = "STATUS"
    case collectGarbage = "GC"
    case version = "VERSION"

    /// The version of the specification that it came with.
    package var since: CNIVersion {
        switch self {
        case .add, .delete, .version: .v0_3_1
        case .check: .v0_4_0
        case .status, .collectGarbage: .v1_1_0
        }
    }

    /// Whether it is about one attachment.
    package var hasAttachment: Bool { [.add, .delete, .check].contains(self) }
}
