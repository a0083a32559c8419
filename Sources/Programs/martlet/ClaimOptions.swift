import ArgumentParser
import Model

/// What a container claims of its node's devices: as `run` and `service create` say it, and as it is changed.
struct ClaimOptions: ParsableArguments {
    @Option(
        help:
            "GPUs that it gets: 2, all, or terms such as model=A100*,memory>=40g,count=2, see docs/devices.md; none for no more."
    )
    var gpus: [String] = []

    /// nil: nothing was said.
    var claims: [DeviceClaim]? {
        get throws {
            if gpus.isEmpty { return nil }
            return gpus == ["none"] ? [] : try gpus.map(Self.claim)
        }
    }

    private static func claim(_ text: String) throws -> DeviceClaim {
        do throws(DeviceClaimProblem) {
            return try DeviceClaim(expression: text)
        } catch {
            throw ValidationError("--gpus \(text): \(error)")
        }
    }
}
