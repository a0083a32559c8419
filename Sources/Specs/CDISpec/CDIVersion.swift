import OCISpec

/// A released version of the CDI specification.
package enum CDIVersion: String, Sendable, CaseIterable, Comparable {
    case v0_1_0 = "0.1.0"
    case v0_2_0 = "0.2.0"
    case v0_3_0 = "0.3.0"
    case v0_4_0 = "0.4.0"
    case v0_5_0 = "0.5.0"
    case v0_6_0 = "0.6.0"
    case v0_7_0 = "0.7.0"
    case v0_8_0 = "0.8.0"
    case v1_0_0 = "1.0.0"
    case v1_1_0 = "1.1.0"

    /// The first that is still read.
    package static let earliest = CDIVersion.v0_3_0
    package static let newest = CDIVersion.v1_1_0

    package static func < (left: CDIVersion, right: CDIVersion) -> Bool { left.order < right.order }
    private var order: Int { Self.allCases.firstIndex(of: self) ?? 0 }
}

/// A field or a form that came with a later version than the earliest (SPEC.md, released versions).
enum CDIFeature {
    case mountType, hostPath, digitFirst, annotations, dottedClass, intelRdt, additionalGids, netDevices, schemata
    case enableMonitoring

    /// The version that a specification with it must have at least.
    var since: CDIVersion {
        switch self {
        case .mountType: .v0_4_0
        case .hostPath, .digitFirst: .v0_5_0
        case .annotations, .dottedClass: .v0_6_0
        case .intelRdt, .additionalGids: .v0_7_0
        case .netDevices, .schemata, .enableMonitoring: .v1_1_0
        }
    }
}

extension CDISpecification {
    /// The lowest version that has all that is in here.
    package var minimumVersion: CDIVersion {
        var features: Set<CDIFeature> = []
        if !annotations.isEmpty { features.insert(.annotations) }
        if kind.className.utf8.contains(UInt8(ascii: ".")) { features.insert(.dottedClass) }
        for device in devices {
            if !device.annotations.isEmpty { features.insert(.annotations) }
            if CDINames.beginsWithDigit(device.name) { features.insert(.digitFirst) }
            features.formUnion(device.edits.features)
        }
        features.formUnion(edits.features)
        return features.map(\.since).max() ?? .earliest
    }
}

extension CDIEdits {
    var features: Set<CDIFeature> {
        var features: Set<CDIFeature> = []
        if mounts.contains(where: { $0.type != nil }) { features.insert(.mountType) }
        if deviceNodes.contains(where: { $0.hostPath != nil }) { features.insert(.hostPath) }
        if let intelRdt {
            features.insert(.intelRdt)
            if !intelRdt.schemata.isEmpty { features.insert(.schemata) }
            if intelRdt.enableMonitoring { features.insert(.enableMonitoring) }
        }
        if !additionalGids.isEmpty { features.insert(.additionalGids) }
        if !netDevices.isEmpty { features.insert(.netDevices) }
        return features
    }
}
