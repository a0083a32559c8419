import CDISpec
import JSON
import Model

/// What clients ask of devices by `--gpus`, and by `--device vendor.com/class=name` from 25 on.
extension CreateTranslation {
    mutating func deviceRequests(_ requests: [HostConfigRequest.DeviceRequest]) throws {
        for request in requests {
            if request.driver == "cdi" {
                spec.devices += try named(request)
            } else {
                spec.deviceClaims.append(try Self.claim(request))
            }
        }
    }

    private func named(_ request: HostConfigRequest.DeviceRequest) throws -> [String] {
        // Capabilities mean nothing to it, but Compose's schema demands them.
        guard (request.count ?? 0) == 0, (request.options ?? [:]).isEmpty else {
            throw DockerError.badRequest(
                "HostConfig.DeviceRequests: the driver cdi takes DeviceIDs only, no Count and no Options")
        }
        let names = request.deviceIDs ?? []
        guard !names.isEmpty, names.allSatisfy({ CDIName($0) != nil }) else {
            throw DockerError.badRequest(
                "HostConfig.DeviceRequests: the driver cdi wants names of devices, vendor.com/class=name, as DeviceIDs")
        }
        return names
    }

    /// What the engine's drivers give; all of it comes with a device here.
    private static let features: Set = [
        "gpu", "nvidia", "amd", "compute", "utility", "graphics", "video", "display", "compat32", "ngx",
    ]

    /// A request by driver and capabilities: a list of alternatives, each with all that it wants.
    static func claim(_ request: HostConfigRequest.DeviceRequest) throws -> DeviceClaim {
        let driver = request.driver ?? ""
        let alternatives = request.capabilities ?? []
        let chosen =
            alternatives.first { $0.contains("gpu") && Set($0).isSubset(of: features) }
            ?? (driver.isEmpty || !alternatives.isEmpty ? nil : [])
        guard ["", "nvidia", "amd"].contains(driver), let chosen else {
            let shown = alternatives.map { "[\($0.joined(separator: " "))]" }.joined(separator: " ")
            throw DockerError.badRequest(
                "could not select device driver \"\(driver)\" with capabilities: [\(shown)]")
        }
        if let option = request.options?.keys.min() {
            throw DockerError.unsupported("HostConfig.DeviceRequests", "the option \(option) of a driver")
        }
        var claim = DeviceClaim(driverFeatures: chosen.filter { $0 != "gpu" })
        let vendors = Set(["nvidia", "amd"].filter { $0 == driver || chosen.contains($0) })
        guard vendors.count <= 1 else {
            throw DockerError.badRequest("HostConfig.DeviceRequests: one device is not nvidia's and amd's")
        }
        claim.vendor = vendors.first
        claim.ids = request.deviceIDs ?? []
        let count = request.count ?? 0
        guard claim.ids.isEmpty || count == 0 else {
            throw DockerError.badRequest("HostConfig.DeviceRequests: Count and DeviceIDs exclude each other")
        }
        if count < 0 {
            claim.all = true
        } else if claim.ids.isEmpty {
            guard count > 0 else {
                throw DockerError.badRequest("HostConfig.DeviceRequests: Count is 0 and there are no DeviceIDs")
            }
            claim.count = Int(count)
        }
        return claim
    }
}

extension DeviceClaim {
    /// The claim as a client asked for it, for `inspect`.
    var request: JSONValue {
        let isByFeature = vendor.map(driverFeatures.contains) ?? true
        return [
            "Driver": .string(isByFeature ? "" : vendor ?? ""),
            "Count": .integer(all ? -1 : ids.isEmpty ? Int64(count ?? 1) : 0),
            "DeviceIDs": ids.isEmpty ? .null : .array(ids.map { .string($0) }),
            "Capabilities": .array([.array((["gpu"] + driverFeatures).map { .string($0) })]), "Options": .object([:]),
        ]
    }
}
