import AgentCore
import CKernel
import Cgroups
import Glibc
import Images
import Kernel
import Logging
import Model
import Networking
import Reactor
import ShimProtocol
import Synchronization
import Wire

extension PodExecutor {
    package func remove(_ assignment: TaskAssignment) async throws(ExecutorFailure) {
        try await explaining("cannot remove container \(assignment.instanceName)") {
            let task = paths.task(assignment.task)
            // The plugins are processes too, and take as long as the runtime: both at once.
            async let disconnected: Void = pool.run { try self.disconnect(task) }
            try await destroyShim(task)
            try await killCgroup(task.id)
            for container in assignment.containers { await deleteRuntimeState(container) }
            let group = try cgroup(of: task.id)
            try await disconnected
            try await pool.run {
                try group.delete()
                try self.undoPreparation(task)
                // The image is free for removal.
                _ = try self.images.removeSnapshot(taskDirectory: task.directory)
                // The record goes last, with `forget`.
                for name in try File.list(task.directory) where name != "task.json" {
                    try Tree.remove("\(task.directory)/\(name)")
                }
                try self.releaseVolumes(of: assignment)
            }
            live.withLock { _ = $0.removeValue(forKey: task.id) }
            probeLog.forget(task.id)
            devices.forget(task.id)
        }
    }

    /// Takes away a task's shim with everything in it; one that is not there is no error.
    func destroyShim(_ task: TaskPaths) async throws {
        live.withLock { $0[task.id]?.isEnding = true }
        let client = ShimClient(socket: task.shimSocket)
        do {
            let state = try await client.call(.state, patience: .seconds(10))
            for container in state.containers ?? [] {
                try await client.call(.delete(container: container.container, force: true), patience: .seconds(60))
            }
            try await client.call(.shutdown, patience: .seconds(10))
        } catch {
            if error.kind != .unreachable {
                logger.warning("a shim is killed", metadata: ["task": "\(task.id)", "why": "\(error)"])
            }
            try await pool.run { try ShimLauncher.kill(task) }
        }
        try await pool.run { _ = try Tree.remove(task.shim) }
    }

    /// Has the runtime forget a container whose shim is gone.
    func deleteRuntimeState(_ container: ContainerID) async {
        let directory = "\(paths.runtime)/\(container)"
        guard File.exists(directory) else { return }
        let program = Program(
            configuration.runtimeProgram, ["--root", paths.runtime, "delete", "--force", container.text])
        do {
            try await pool.run {
                let result = try program.run()
                if result.status != .exited(0) || File.exists(directory) {
                    // Its processes are dead; only the record is left.
                    try Tree.remove(directory)
                }
            }
        } catch {
            logger.warning(
                "the runtime's record of a container stays",
                metadata: ["container": "\(container)", "error": "\(error)"])
        }
    }

    /// Takes away network, mounts and root file system; the container's own writable layer stays. Blocks.
    func undoPreparation(_ task: TaskPaths) throws {
        try disconnect(task)
        try NetworkNamespace.remove(at: task.namespace)
        try Mounts.detachAll(below: [task.directory])
        try removeSecrets(task)
    }
    /// Takes a task from all networks; it is not prepared any more then, and its namespace has to go. Blocks.
    private func disconnect(_ task: TaskPaths) throws {
        try File.removeFile(task.pod)
        try detachFromAll(task)
    }
}
