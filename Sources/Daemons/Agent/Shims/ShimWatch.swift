import AgentCore
import JSON
import Kernel
import Logging
import Model
import Reactor
import ShimProtocol
import StreamFrames
import Synchronization

extension PodExecutor {
    /// Follows a shim's events until it is taken down or lost.
    func watch(_ task: TaskID, _ container: ContainerID) async {
        while !Task.isCancelled {
            do {
                try await shim(of: task).session(.events) { _, connection in
                    while let frame = try await connection.next() {
                        guard case .control(let bytes) = frame else { break }
                        note(try JSONCoding.decode(ShimEvent.self, from: bytes), task)
                    }
                }
            } catch is CancellationError {
                return
            } catch {
                logger.debug("a shim's events broke off", metadata: ["task": "\(task)", "error": "\(error)"])
            }
            if live.withLock({ $0[task]?.isEnding ?? true }) { break }
            do {
                try await shim(of: task).call(.hello, patience: .seconds(10))
                try await Task.sleep(for: .milliseconds(100))
            } catch is CancellationError {
                return
            } catch {
                await lose(task, container)
                break
            }
        }
        live.withLock { $0[task]?.isWatched = false }
    }

    private func note(_ event: ShimEvent, _ task: TaskID) {
        for state in (event.containers ?? []) + [event.container].compactMap({ $0 }) {
            guard let exit = state.exit else { continue }
            tell(.exited(task, ContainerExit(exit)))
        }
    }

    /// A shim has died under its container: nothing of that may run on.
    private func lose(_ task: TaskID, _ container: ContainerID) async {
        guard let start = live.withLock({ $0[task]?.start }) else { return }
        logger.error("a shim is lost; its container is killed", metadata: ["task": "\(task)"])
        let paths = paths.task(task)
        for _ in 0..<3 {
            do {
                try await killCgroup(task)
                break
            } catch {
                logger.error(
                    "a container without a shim cannot be killed", metadata: ["task": "\(task)", "error": "\(error)"])
                try? await Task.sleep(for: .seconds(1))
            }
        }
        try? await pool.run {
            try ShimLauncher.kill(paths)
            try Tree.remove(paths.shim)
        }
        await deleteRuntimeState(container)
        // The shim writes the record before it tells anybody: it may be there although nobody was told.
        let exit = try? await pool.run { try Self.exitRecord(paths, start) }
        tell(
            .exited(
                task,
                exit.map { ContainerExit($0) }
                    ?? ContainerExit(start: start, exitCode: 137, finishedAt: Timestamp.now(), reason: "shim lost")))
    }
}
