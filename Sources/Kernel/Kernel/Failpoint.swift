#if DEBUG || FAILPOINTS
    import Glibc
    import Synchronization

    /// Which mark is armed, read once from `MARTLET_FAILPOINT=name[:N]`, and how often it has been passed.
    private let armed: (name: String, hit: Int)? = {
        guard let text = getenv("MARTLET_FAILPOINT").map({ String(cString: $0) }), !text.isEmpty else { return nil }
        guard let colon = text.lastIndex(of: ":") else { return (text, 1) }
        return (String(text[..<colon]), Int(text[text.index(after: colon)...]) ?? 1)
    }()
    private let passed = Atomic<Int>(0)
#endif

/// Marks a point at which a crash must do no harm.
///
/// In test builds the process kills itself with SIGKILL when it passes the mark that `MARTLET_FAILPOINT` names, the
/// N-th time with `name:N`. Release builds contain nothing of it, unless built with `-DFAILPOINTS`.
package func failpoint(_ name: StaticString) {
    #if DEBUG || FAILPOINTS
        hitFailpoint(name)
    #endif
}

#if DEBUG || FAILPOINTS
    private func hitFailpoint(_ name: StaticString) {
        guard let armed, name.description == armed.name else { return }
        if passed.add(1, ordering: .relaxed).newValue == armed.hit { kill(getpid(), SIGKILL) }
    }
#endif
