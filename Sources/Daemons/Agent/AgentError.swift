import AgentCore
import Client
import Kernel
import Networking

/// Why the agent cannot start or go on; a sentence for the operator.
package struct AgentError: Error, Sendable, Equatable, CustomStringConvertible {
    package let description: String

    package init(_ description: String) { self.description = description }
}
