/// Why a credential, certificate or key is not accepted or cannot be made; a sentence that can be shown as it is.
package struct SecurityError: Error, Sendable, Equatable, CustomStringConvertible {
    package let description: String

    package init(_ description: String) { self.description = description }
}
