#if DEBUG || FAILPOINTS
    import Glibc
    import Synchronization

    /// Which mark is armed, read once from the environment.
    private struct ArmedMark {
        let name: String
        let hit: Int
        let trigger: String?

        init?(_ text: String) {
            let parts = text.split(separator: "@", maxSplits: 1)
            guard let mark = parts.first?.split(separator: ":", maxSplits: 1), let name = mark.first else { return nil }
            self.name = String(name)
            hit = mark.count == 2 ? Int(mark[1]) ?? 1 : 1
            trigger = parts.count == 2 ? String(parts[1]) : nil
        }
    }

    private let armed = getenv("MARTLET_FAILPOINT").flatMap { ArmedMark(String(cString: $0)) }
    private let passed = Atomic<Int>(0)
#endif

/// Marks a point at which a crash must do no harm.
///
/// In test builds the process kills itself with SIGKILL when it passes the mark that `MARTLET_FAILPOINT` names, the
/// N-th time with `name:N`. With `name@/file` passing counts only while that file is there, and whoever dies takes it
/// away: one death, at the moment that the test chose. Release builds contain nothing of it, unless built with
/// `-DFAILPOINTS`.
package func failpoint(_ name: StaticString) {
    #if DEBUG || FAILPOINTS
        hitFailpoint(name)
    #endif
}

#if DEBUG || FAILPOINTS
    private func hitFailpoint(_ name: StaticString) {
        guard let armed, name.description == armed.name else { return }
        if let trigger = armed.trigger, access(trigger, F_OK) != 0 { return }
        guard passed.add(1, ordering: .relaxed).newValue == armed.hit else { return }
        if let trigger = armed.trigger, unlink(trigger) != 0 { return }
        kill(getpid(), SIGKILL)
    }
#endif
