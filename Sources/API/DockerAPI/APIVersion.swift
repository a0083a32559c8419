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
    static let newest = APIVersion(minor: 56)
}

/// Versions that answer otherwise than those before them. What came with one is asked for by `version >= .v1_52`, what
/// went with it by `version < .v1_52`.
extension APIVersion {
    static let v1_28 = APIVersion(minor: 28)
    static let v1_42 = APIVersion(minor: 42)
    static let v1_43 = APIVersion(minor: 43)
    static let v1_44 = APIVersion(minor: 44)
    static let v1_45 = APIVersion(minor: 45)
    static let v1_46 = APIVersion(minor: 46)
    static let v1_48 = APIVersion(minor: 48)
    static let v1_49 = APIVersion(minor: 49)
    static let v1_50 = APIVersion(minor: 50)
    static let v1_51 = APIVersion(minor: 51)
    static let v1_52 = APIVersion(minor: 52)
    static let v1_53 = APIVersion(minor: 53)
    static let v1_54 = APIVersion(minor: 54)
    static let v1_55 = APIVersion(minor: 55)
}
