import Kernel

/// Why the node's network cannot be what was asked for: one sentence that says what to do next.
package struct NetworkError: Error, Sendable, Equatable, CustomStringConvertible {
    package enum Kind: Sendable, Equatable {
        /// The configuration contradicts itself.
        case configuration
        /// The bridge's name belongs to something else.
        case bridgeTaken
        /// The subnet is in use on this machine.
        case subnetTaken
        /// The one address that will do is another's.
        case addressTaken
        /// A port of this machine is in use.
        case portTaken
        /// A program or plugin is not installed.
        case missingProgram
        /// A plugin, the packet filter or the kernel refused.
        case failed
    }

    package let kind: Kind
    package let description: String

    package init(_ kind: Kind, _ description: String) {
        self.kind = kind
        self.description = description
    }
}
