import AgentCore
import CDI
import CDISpec
import Logging
import Model
import Wire

/// What the node has of devices, in view while the agent runs.
extension PodExecutor {
    /// Looks for devices, and says what is wrong with CDI specifications, until it is cancelled.
    func keepDevices() async {
        let (logger, devices) = (logger, devices)
        do {
            try devices.start { [weak self] in self?.inventoryChanged() }
        } catch {
            logger.error("devices are not looked for", metadata: ["error": "\(error)"])
        }
        var watch: CDIWatch?
        do {
            watch = try CDIWatch(cdi) { inventory in
                for warning in inventory.warnings { logger.warning("devices", metadata: ["what": "\(warning)"]) }
                // Somebody else's specification came or went.
                devices.publish()
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

extension PodExecutor {
    /// What a container's devices change in its configuration: first those that it claims, then those that it asks for by their
    /// CDI names, which take the others' place.
    ///
    /// - Throws: what says which device it cannot have.
    func deviceEdits(
        _ assignment: TaskAssignment, _ spec: Model.ContainerSpec
    ) throws -> (claimed: CDIEdits, named: CDIEdits) {
        let granted = assignment.devices(of: spec.name)
        let names = spec.devices.compactMap { CDIName($0) }
        // Most containers want none: nothing is asked for them.
        if granted.isEmpty, names.isEmpty { return (CDIEdits(), CDIEdits()) }
        // A specification of ours may be of an earlier boot until then, in which numbers of devices were others.
        guard devices.hasLooked || granted.isEmpty && !names.contains(where: devices.isOwn) else {
            throw ExecutorFailure("the node has not found out yet what devices it has", isTransient: true)
        }
        let named = devices.resolve(names, for: assignment.task)
        for other in table.all where other.assignment.task != assignment.task {
            if let id = other.deviceUse.granted.intersection(named).min() {
                throw ExecutorFailure(
                    "the device \(id) has been claimed by another container: claim a device too, without naming one")
            }
        }
        return (try claimedEdits(assignment, spec), try cdi.edits(of: names))
    }

    /// The same of those that it claims alone.
    ///
    /// - Parameter had: devices that it has already, which are left to it as they are.
    func claimedEdits(
        _ assignment: TaskAssignment, _ spec: Model.ContainerSpec, had: Set<String> = []
    ) throws -> CDIEdits {
        let granted = assignment.devices(of: spec.name)
        if granted.isEmpty { return CDIEdits() }
        guard devices.hasLooked else {
            throw ExecutorFailure("the node has not found out yet what devices it has", isTransient: true)
        }
        for other in table.all where other.assignment.task != assignment.task {
            // Who came by name goes first: the master did not know of it yet. What was granted twice is shared.
            if let id = devices.named(by: other).intersection(granted).min() {
                throw ExecutorFailure(
                    "the device \(id) is in use by another container, which asked for it by name", isTransient: true)
            }
        }
        return try devices.edits(of: granted, had: had)
    }
}
