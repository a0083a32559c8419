import Model
import Scheduling

/// Which processors of their nodes tasks have alone.
///
/// As with devices: from the transaction that places the task until it rests, and anew before it starts again. Which
/// processors a node has is in its record, so that nothing has to be told again after a restart of the master.
extension MasterCore {
    /// The node's processors with all that somebody has alone.
    func processorPool(of node: Node) -> ProcessorPool {
        ProcessorPool(node.processors, holdings: Array((state.indexes.processorHoldings[node.id] ?? [:]).values))
    }

    /// Gives a task that rests the devices and processors that it wants to start again; one that does not rest keeps what
    /// it has.
    func grantOwn(to task: inout NodeTask) throws(DeviceShortage) {
        try grantDevices(to: &task)
        try grantProcessors(to: &task)
    }

    private func grantProcessors(to task: inout NodeTask) throws(DeviceShortage) {
        guard let pod = state.pod(of: task), let node = state.nodes[task.node] else { return }
        let demanded = DemandedProcessors.all(of: pod)
        guard !demanded.isEmpty, task.rests || task.grantedProcessors.isEmpty else { return }
        let pool = processorPool(of: node)
        if task.grantedProcessors.count == demanded.count, pool.isFree(task.grantedProcessors) { return }
        switch pool.choose(demanded, near: devicePool(of: node.id).places(of: task.grantedDevices)) {
        case .grants(let grants): task.grantedProcessors = grants
        case .lacks(let words): throw DeviceShortage(description: words, subject: "processors")
        }
    }
}

extension PodSpec {
    /// Whether it has something of its node that only one can have and that the master chooses.
    var wantsOwn: Bool { containers.contains { !$0.deviceClaims.isEmpty || $0.limits.pinning != nil } }
}
