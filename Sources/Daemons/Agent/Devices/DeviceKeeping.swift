import CDI
import Logging

/// What the node has of devices, in view while the agent runs.
extension PodExecutor {
    /// Looks for devices, and says what is wrong with CDI specifications, until it is cancelled.
    func keepDevices() async {
        let logger = logger
        do {
            try devices.start { [weak self] in self?.inventoryChanged() }
        } catch {
            logger.error("devices are not looked for", metadata: ["error": "\(error)"])
        }
        var watch: CDIWatch?
        do {
            watch = try CDIWatch(cdi) { inventory in
                for warning in inventory.warnings { logger.warning("devices", metadata: ["what": "\(warning)"]) }
            }
        } catch {
            // Each start looks by itself: only mistakes are told later.
            logger.warning("the directories of CDI are not watched", metadata: ["error": "\(error)"])
        }
        for await _ in table.deviceChanges { inventoryChanged() }
        withExtendedLifetime(watch) {}
        devices.stop()
    }
}
