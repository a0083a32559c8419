/// Why a request was not done, before any protocol: faces translate it into their own error bodies.
///
/// The message says what failed, on which object, why, and what to do next; it is shown to people as it is.
package struct APIProblem: Error, Sendable, Hashable, CustomStringConvertible {
    /// One word for programs. Its HTTP status is in `status`.
    package enum Code: String, Sendable, Hashable, CaseIterable {
        case badRequest = "bad-request"
        /// No credential, or one that does not count.
        case unauthorized
        /// The credential counts, but not for this.
        case forbidden
        case notFound = "not-found"
        /// No node has the image, as far as the master has heard.
        case noSuchImage = "no-such-image"
        case conflict
        /// Another agent is connected as the same node; it may be the one before this.
        case nodeConnected = "node-connected"
        case tooLarge = "too-large"
        case unsupported
        case unavailable
        case storageFull = "storage-full"
        case timeout
        case `internal`
    }

    package var code: Code
    package var message: String

    package init(_ code: Code, _ message: String) {
        self.code = code
        self.message = message
    }

    package var description: String { message }
}

extension APIProblem.Code {
    /// The HTTP status that goes with the word.
    package var status: Int {
        switch self {
        case .badRequest: 400
        case .unauthorized: 401
        case .forbidden: 403
        case .notFound, .noSuchImage: 404
        case .conflict, .nodeConnected: 409
        case .tooLarge: 413
        case .internal: 500
        case .unsupported: 501
        case .unavailable: 503
        case .timeout: 504
        case .storageFull: 507
        }
    }
}
