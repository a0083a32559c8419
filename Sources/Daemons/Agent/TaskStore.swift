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

    /// Removes the record and all that is left of the task.
    ///
    /// - Throws: `KernelError`, also when something is still mounted there.
    func forget(_ task: TaskID) throws { try Tree.remove(paths.task(task).directory) }

    /// Every record, and the ids of directories that have none that can be read: leftovers.
    func load(_ logger: Logger) throws -> (records: [TaskRecord], leftovers: [TaskID]) {
        try File.makeDirectories(paths.tasks)
        var records: [TaskRecord] = []
        var leftovers: [TaskID] = []
        for name in try File.list(paths.tasks).sorted() {
            let id = TaskID(name)
            do {
                let record = try JSONCoding.decode(TaskRecord.self, from: File.read(paths.task(id).record))
                guard record.schema <= TaskRecord.currentSchema, record.assignment.task == id else {
                    throw AgentError("its format \(record.schema) is newer than this agent's")
                }
                records.append(record)
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
