import CKernel
import Glibc
import Kernel

// Stopping, continuing and ending what runs in a group.
extension CgroupManager {
    /// Stops every process of the group and its sub-groups, and waits until all of them stand still.
    ///
    /// Where cgroup2 is mounted its freezer is used, because frozen processes can be killed there; else v1's.
    /// - Throws: `CgroupError` of kind `timedOut`; the group is thawed again then.
    package func freeze(timeoutMilliseconds: Int = 5000) throws(CgroupError) {
        let deadline = Deadline(milliseconds: timeoutMilliseconds)
        if let directory = unifiedDirectory {
            let group = ControlDirectory(directory)
            try group.write("cgroup.freeze", "1")
            if Self.await("frozen", 1, in: group, deadline) { return }
            _ = group.attempt("cgroup.freeze", "0")
            throw Self.notFrozen(directory, timeoutMilliseconds)
        }
        let group = try oldFreezer()
        var rounds = 0
        while true {
            // Tasks that were forked meanwhile leave the group FREEZING: the state is written again until it holds.
            try group.write("freezer.state", "FROZEN")
            if try group.read("freezer.state") == "FROZEN" { return }
            guard !deadline.hasPassed else { break }
            rounds += 1
            if rounds % 25 == 0 {
                try group.write("freezer.state", "THAWED")
                deadline.pause(2)
            }
            deadline.pause(1)
        }
        _ = group.attempt("freezer.state", "THAWED")
        throw Self.notFrozen(group.path, timeoutMilliseconds)
    }

    /// Lets every process of the group go on, whichever freezer stopped it.
    ///
    /// - Throws: `CgroupError` of kind `timedOut` when a parent group keeps it frozen.
    package func thaw(timeoutMilliseconds: Int = 5000) throws(CgroupError) {
        let deadline = Deadline(milliseconds: timeoutMilliseconds)
        if let directory = unifiedDirectory {
            let group = ControlDirectory(directory)
            try group.write("cgroup.freeze", "0")
            guard Self.await("frozen", 0, in: group, deadline) else {
                throw CgroupError(.timedOut, directory, "stays frozen", hint: "thaw the groups above it")
            }
        }
        guard let group = oldFreezerIfPresent, try group.read("freezer.state") != "THAWED" else { return }
        try group.write("freezer.state", "THAWED")
        while try group.read("freezer.state") != "THAWED" {
            guard !deadline.hasPassed else {
                throw CgroupError(
                    .timedOut, controller: "freezer", group.path, "stays frozen", hint: "thaw the groups above it")
            }
            deadline.pause(1)
        }
    }

    /// Whether the group is frozen or on its way there, by itself or by a group above it.
    package func isFrozen() throws(CgroupError) -> Bool {
        if let directory = unifiedDirectory {
            let group = ControlDirectory(directory)
            if group.table("cgroup.events")["frozen"] == 1 || group.readIfPresent("cgroup.freeze") == "1" {
                return true
            }
        }
        guard let state = oldFreezerIfPresent?.readIfPresent("freezer.state") else { return false }
        return state != "THAWED"
    }

    /// Sends a signal to every process of the group and its sub-groups that is there now.
    ///
    /// Processes are held by pidfd and looked for a second time before they are signalled, so that a number that was
    /// given to somebody else meanwhile does no harm.
    /// - Throws: `CgroupError` when a process could not be signalled for another reason than having ended.
    package func signalAll(_ signal: Int32) throws(CgroupError) {
        var held: [(pid: pid_t, descriptor: SharedFD)] = []
        for pid in try processes() {
            let raw = ck_pidfd_open(pid, 0)
            if raw >= 0 { held.append((pid, SharedFD(OwnedFD(adopting: Int32(raw))))) }
        }
        let still = Set(try processes())
        for entry in held where still.contains(entry.pid) {
            guard ck_pidfd_send_signal(entry.descriptor.raw, signal) == 0 || errno == ESRCH else {
                throw CgroupError(.refused, path, "signal \(signal) to process \(entry.pid)", errno: errno)
            }
        }
    }

    /// Kills every process of the group and its sub-groups, frozen ones too, and waits until none is left.
    ///
    /// With cgroup2 the kernel does it in one step (`cgroup.kill`); else the group is frozen, so that nobody forks
    /// away, everyone is signalled and the group is thawed, until it is empty.
    /// - Throws: `CgroupError` of kind `timedOut` naming processes that do not end (they sleep in the kernel).
    package func kill(timeoutMilliseconds: Int = 10_000) throws(CgroupError) {
        guard exists() else { return }
        let deadline = Deadline(milliseconds: timeoutMilliseconds)
        let unified = unifiedDirectory.map { ControlDirectory($0) }
        var wait = 1
        while true {
            let killed = unified.map { $0.attempt("cgroup.kill", "1") == 0 } ?? false
            if killed, let unified, Self.await("populated", 0, in: unified, Deadline(milliseconds: wait)) {
                if try isEmpty() { return }
            }
            if !killed || populationRoots.count > 1 { try killStragglers(freezing: !killed) }
            if try isEmpty() { return }
            guard !deadline.hasPassed else {
                throw CgroupError(
                    .timedOut, path, "processes did not end after SIGKILL: \(Self.list(try processes()))",
                    hint: "they wait in the kernel, for a disk or network mount perhaps: see /proc/PID/stack")
            }
            deadline.pause(wait)
            wait = min(wait * 2, 50)
        }
    }

    /// One round of the way without `cgroup.kill`.
    private func killStragglers(freezing: Bool) throws(CgroupError) {
        // A v1-frozen process dies only when it is thawed.
        let freezer = oldFreezerIfPresent
        if freezing { _ = freezer?.attempt("freezer.state", "FROZEN") }
        do throws(CgroupError) {
            try signalAll(SIGKILL)
        } catch {
            _ = freezer?.attempt("freezer.state", "THAWED")
            throw error
        }
        _ = freezer?.attempt("freezer.state", "THAWED")
    }

    private var oldFreezerIfPresent: ControlDirectory? {
        guard let home = layout.hierarchies.first(where: { $0.version == .v1 && $0.controllers.contains(.freezer) })
        else { return nil }
        let group = ControlDirectory(home.directory(path), "freezer")
        return group.has("freezer.state") ? group : nil
    }

    private func oldFreezer() throws(CgroupError) -> ControlDirectory {
        if let group = oldFreezerIfPresent { return group }
        throw CgroupError(
            .controllerAbsent, controller: "freezer", path, "nothing can freeze this group",
            hint: "mount cgroup2 or the v1 freezer, and create the group first")
    }

    private static func notFrozen(_ directory: String, _ milliseconds: Int) -> CgroupError {
        CgroupError(
            .timedOut, controller: "freezer", directory,
            "did not freeze within \(milliseconds) ms and was thawed again",
            hint: "a process may wait in the kernel; try again")
    }

    /// Waits until a key of `cgroup.events` has a value; the kernel announces changes by POLLPRI.
    ///
    /// - Returns: false when the time is over first.
    static func await(_ key: String, _ value: UInt64, in group: ControlDirectory, _ deadline: Deadline) -> Bool {
        let raw = ck_open("\(group.path)/cgroup.events", O_RDONLY | O_CLOEXEC, 0)
        guard raw >= 0 else { return value == 0 }
        let events = OwnedFD(adopting: raw)
        while true {
            if group.table("cgroup.events")[key] == value { return true }
            let remaining = deadline.remaining
            guard remaining > 0 else { return false }
            var request = pollfd(fd: events.raw, events: Int16(POLLPRI), revents: 0)
            // A change between the look and the wait is not announced again: look at least every 10 ms.
            poll(&request, 1, Int32(min(remaining, 10)))
        }
    }
}
