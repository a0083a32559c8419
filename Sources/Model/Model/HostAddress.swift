import CNISpec

extension PortMapping {
    /// Whether who comes to an address may mean both of what is published at these host addresses. What names none is
    /// taken for both families, whatever its pod has now.
    package static func meet(_ one: String, _ other: String) -> Bool {
        if one == other || one.isEmpty || other.isEmpty { return true }
        guard let left = IPAddress(one), let right = IPAddress(other), left.family == right.family else { return false }
        return left == right || left.isUnspecified || right.isUnspecified
    }
}
