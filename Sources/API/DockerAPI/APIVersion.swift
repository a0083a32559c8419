/// A version of Docker's API, `1.41`, as it stands before the path: `/v1.41/containers/json`.
struct APIVersion: Sendable, Comparable, CustomStringConvertible {
    /// What stands behind `1.`.
    let minor: Int

    init(minor: Int) { self.minor = minor }

    /// Reads `1.41`; nil when it is something else.
    init?(_ text: some StringProtocol) {
        let parts = text.split(separator: ".", omittingEmptySubsequences: false)
        guard parts.count == 2, parts[0] == "1", let minor = Int(parts[1]), (0...999).contains(minor),
            // No sign, and no zero before it.
            String(minor) == parts[1]
        else {
            return nil
        }
        self.minor = minor
    }

    static func < (left: APIVersion, right: APIVersion) -> Bool { left.minor < right.minor }

    var description: String { "1.\(minor)" }

    /// The oldest that is spoken.
    static let oldest = APIVersion(minor: 24)
    /// The newest, which is meant where a path names none.
    static let newest = APIVersion(minor: 51)
}
