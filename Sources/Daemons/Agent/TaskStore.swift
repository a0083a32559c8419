import AgentCore
import CKernel
import Glibc
import JSON
import Kernel
import Logging
import Model
import Wire

/// The durable records of tasks, `DATA/tasks/<task>/task.json`. All functions block.
struct TaskStore: Sendable {
    let paths: AgentPaths
    /// The epochs of instances whose tasks are forgotten.
    let epochs: EpochLog

    init(paths: AgentPaths) {
        self.paths = paths
        epochs = EpochLog(paths.epochs)
    }

    /// Replaces the record; with `sync` it outlives the machine, without it only the process.
    func write(_ record: TaskRecord, sync: Bool) throws {
        let task = paths.task(record.assignment.task)
        let bytes = try JSONCoding.encode(record)
        if !File.exists(task.directory) {
            try File.makeDirectories(task.directory)
            if sync { try File.syncDirectory(of: task.directory) }
        }
        if sync { return try File.replace(task.record, with: bytes) }
        let temporary = task.record + ".new"
        do {
            let file = try File.open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW)
            try file.writeAll(bytes, subject: temporary)
        } catch {
            unlink(temporary)
            throw error
        }
        try systemCall("rename", task.record) { rename(temporary, task.record) }
    }

    /// Removes the record and all that is left of the task, after its instance's epoch was noted.
    ///
    /// - Throws: `KernelError`, also when something is still mounted there.
    func forget(_ task: TaskID) throws {
        let directory = paths.task(task)
        // A task that was never written down was never begun: its epoch guards nothing.
        if File.exists(directory.record) {
            let assignment = try read(task).assignment
            try epochs.append(assignment.instance, assignment.epoch)
        }
        try Tree.remove(directory.directory)
    }

    private func read(_ task: TaskID) throws -> TaskRecord {
        let record = try JSONCoding.decode(TaskRecord.self, from: File.read(paths.task(task).record))
        guard record.schema <= TaskRecord.currentSchema, record.assignment.task == task else {
            throw AgentError("its format \(record.schema) is newer than this agent's")
        }
        return record
    }

    /// Every record, and the ids of directories that have none that can be read: leftovers.
    func load(_ logger: Logger) throws -> (records: [TaskRecord], leftovers: [TaskID]) {
        try File.makeDirectories(paths.tasks)
        var records: [TaskRecord] = []
        var leftovers: [TaskID] = []
        for name in try File.list(paths.tasks).sorted() {
            let id = TaskID(name)
            do {
                records.append(try read(id))
            } catch {
                logger.warning(
                    "a task's directory has no record that can be used; what is left of the task is removed",
                    metadata: ["task": "\(id)", "error": "\(error)"])
                leftovers.append(id)
            }
        }
        return (records, leftovers)
    }
}
