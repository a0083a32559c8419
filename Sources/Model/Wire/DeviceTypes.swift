import Model

/// A device of a node, and who has it: `GET /devices`.
package struct DeviceView: Sendable, Codable, Hashable {
    /// A task that has the device, or a share of it.
    package struct Holder: Sendable, Codable, Hashable {
        /// nil: another group's, or one that the master does not know any more.
        package var task: TaskID?
        package var container: ContainerID?
        /// The container's name; empty where `task` is nil.
        package var name: String
        package var sharing: DeviceClaim.Sharing
        /// The node has something left of a task that the master has forgotten.
        package var isForgotten: Bool

        package init(
            task: TaskID?, container: ContainerID? = nil, name: String = "", sharing: DeviceClaim.Sharing,
            isForgotten: Bool = false
        ) {
            self.task = task
            self.container = container
            self.name = name
            self.sharing = sharing
            self.isForgotten = isForgotten
        }
    }

    package var node: NodeID
    package var nodeName: String
    /// Without `heldBy`, which `holders` says in full.
    package var device: NodeDevice
    package var holders: [Holder]

    package init(node: NodeID, nodeName: String, device: NodeDevice, holders: [Holder]) {
        self.node = node
        self.nodeName = nodeName
        self.device = device
        self.holders = holders
    }
}
