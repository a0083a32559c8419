import AgentCore
import ShimProtocol

extension ContainerExit {
    init(_ record: ExitRecord) {
        self.init(
            start: record.start, exitCode: Int(record.exitCode), outOfMemory: record.oomKilled,
            startedAt: record.startedAt, finishedAt: record.finishedAt,
            reason: record.reason == ExitRecord.leaseRanOut ? Self.lease : record.reason ?? "")
    }
}
