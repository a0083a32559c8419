extension Admission {
    /// Claims of devices: what can be meant, in bounds. Whether a node has such devices is asked when one is looked for.
    ///
    /// They are amounts, as memory is, and no privilege: a task gets what nobody else has, and nothing beside.
    package func deviceClaims(_ claims: [DeviceClaim], at path: String) throws(AdmissionError) {
        try bounded(claims.count, DeviceClaim.mostClaims, "claims", at: path)
        var ids: Set<String> = []
        var sum = 0
        for (index, claim) in claims.enumerated() {
            let here = "\(path)[\(index)]"
            guard claim.kind == NodeDevice.gpu else {
                throw AdmissionError(
                    "\(here).kind", "devices of the kind \(Self.quoted(claim.kind)) are not known, only gpu",
                    kind: .unsupported)
            }
            try amount(claim, at: here)
            sum += claim.wanted ?? 1
            for (number, id) in claim.ids.enumerated() where !ids.insert(id).inserted {
                throw AdmissionError("\(here).ids[\(number)]", "\(Self.quoted(id)) is claimed twice")
            }
            try attributes(claim, at: here)
        }
        guard sum <= DeviceClaim.mostDevices else {
            throw AdmissionError(
                path, "\(sum) devices are more than the \(DeviceClaim.mostDevices) that a container may claim")
        }
    }

    private func amount(_ claim: DeviceClaim, at path: String) throws(AdmissionError) {
        if let count = claim.count {
            guard (1...DeviceClaim.mostDevices).contains(count) else {
                throw AdmissionError(
                    "\(path).count", "\(count) devices cannot be claimed: 1 to \(DeviceClaim.mostDevices) can")
            }
            guard !claim.all else {
                throw AdmissionError("\(path).count", "goes without all: leave one of them out")
            }
            guard claim.ids.isEmpty || count == claim.ids.count else {
                throw AdmissionError(
                    "\(path).count", "\(count) is not the number of ids, \(claim.ids.count): leave it out")
            }
        }
        try bounded(claim.ids.count, DeviceClaim.mostDevices, "ids", at: "\(path).ids")
        for (index, id) in claim.ids.enumerated() where !NodeDevice.isName(id) {
            throw AdmissionError("\(path).ids[\(index)]", "\(Self.quoted(id)) is no device's id")
        }
        guard claim.ids.isEmpty || !claim.all else {
            throw AdmissionError("\(path).ids", "go without all: leave one of them out")
        }
        guard claim.sharing == .whole || !claim.all else {
            throw AdmissionError("\(path).sharing", "a share of all devices is not given: say of how many")
        }
    }

    private func attributes(_ claim: DeviceClaim, at path: String) throws(AdmissionError) {
        if let vendor = claim.vendor, !["nvidia", "amd", "intel"].contains(vendor) {
            throw AdmissionError("\(path).vendor", "\(Self.quoted(vendor)) is no vendor: nvidia, amd or intel")
        }
        for (field, value) in [("model", claim.model), ("profile", claim.profile)] {
            guard let value else { continue }
            try text(value, atMost: 256, "the pattern", at: "\(path).\(field)")
            if value.isEmpty { throw AdmissionError("\(path).\(field)", "is empty: leave it out, or write *") }
            do {
                _ = try Pattern(value)
            } catch {
                throw AdmissionError("\(path).\(field)", "\(Self.quoted(value)) is no regular expression: \(error)")
            }
        }
        if let memory = claim.memory, !(1...(1 << 50)).contains(memory) {
            throw AdmissionError("\(path).memory", "\(memory) bytes are not between 1 and 1 PiB")
        }
        for (field, value) in [("driver", claim.driver), ("runtime", claim.runtime)] {
            guard let value, DeviceVersion(value) == nil else { continue }
            throw AdmissionError("\(path).\(field)", "\(Self.quoted(value)) is no version: write it as 550.54")
        }
        if let capability = claim.capability, !NodeDevice.isName(capability) {
            throw AdmissionError(
                "\(path).capability", "\(Self.quoted(capability)) is no capability: write it as 8.0 or gfx942")
        }
        try bounded(claim.driverFeatures.count, 16, "features", at: "\(path).driverFeatures")
        for (index, feature) in claim.driverFeatures.enumerated() where !NodeDevice.isName(feature) {
            throw AdmissionError("\(path).driverFeatures[\(index)]", "\(Self.quoted(feature)) is no feature")
        }
    }
}
