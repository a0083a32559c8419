/// The execs that were made and not forgotten yet.
final class ExecSessions: Sendable {
}
