extension PodSpec {
    /// Whether what `other` says differs only in what may change while the pod runs: limits but that of /dev/shm, huge
    /// pages and processors of its own, the restart policy, claims of devices, and the networks that it is attached to.
    package func changesInPlace(from other: PodSpec) -> Bool {
        guard containers.count == other.containers.count else { return false }
        var changed = other
        changed.restart = restart
        changed.attachments = attachments
        let connected: Set<Network> = [.bridge, .attached, .none]
        if connected.contains(network), connected.contains(other.network) { changed.network = network }
        for index in containers.indices {
            let old = changed.containers[index].limits
            changed.containers[index].limits = containers[index].limits
            changed.containers[index].limits.sharedMemory = old.sharedMemory
            changed.containers[index].limits.hugepages = old.hugepages
            changed.containers[index].limits.pinning = old.pinning
            // So many processors it was given.
            if old.pinning != nil { changed.containers[index].limits.cpu = old.cpu }
            changed.containers[index].deviceClaims = containers[index].deviceClaims
        }
        return changed == self
    }
}
