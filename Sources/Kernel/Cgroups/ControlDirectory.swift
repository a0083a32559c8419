import CKernel
import Glibc
import Kernel

/// One directory of a control group, with the controller that a failure there is blamed on.
struct ControlDirectory: Sendable {
    let path: String
    let controller: String

    init(_ path: String, _ controller: String = "cgroup") {
        self.path = path
        self.controller = controller
    }

    func has(_ file: String) -> Bool { access("\(path)/\(file)", F_OK) == 0 }

    /// Writes a control file in one write(2), which the kernel takes as one command.
    func write(_ file: String, _ text: String, hint: String = "") throws(CgroupError) {
        let number = attempt(file, text)
        if number != 0 { throw refusal(file, text, errno: number, hint: hint) }
    }

    /// Writes several commands to a control file, in order, which stays open meanwhile: an open of one takes the kernel
    /// longer than the command.
    func write(_ file: String, each texts: [String]) throws(CgroupError) {
        guard let first = texts.first else { return }
        let raw = open(file)
        guard raw >= 0 else { throw refusal(file, first, errno: errno) }
        let descriptor = OwnedFD(adopting: raw)
        for text in texts {
            let number = Self.write(text, to: descriptor)
            if number != 0 { throw refusal(file, text, errno: number) }
        }
    }

    /// Writes a control file.
    ///
    /// - Returns: 0 or the error number.
    func attempt(_ file: String, _ text: String) -> Int32 {
        let raw = open(file)
        guard raw >= 0 else { return errno }
        return Self.write(text, to: OwnedFD(adopting: raw))
    }

    private func open(_ file: String) -> Int32 {
        // Truncation means nothing to the kernel's files; it makes plain files stand in for them in tests.
        ck_open("\(path)/\(file)", O_WRONLY | O_TRUNC | O_CLOEXEC, 0)
    }

    /// Returns 0 or the error number.
    private static func write(_ text: String, to descriptor: borrowing OwnedFD) -> Int32 {
        let raw = descriptor.raw
        var text = text
        while true {
            let count = text.withUTF8 { Glibc.write(raw, $0.baseAddress, $0.count) }
            if count >= 0 { return 0 }
            if errno != EINTR { return errno }
        }
    }

    func refusal(_ file: String, _ text: String, errno number: Int32, hint: String = "") -> CgroupError {
        var hint = hint
        if hint.isEmpty && number == ENOENT {
            hint = has("") ? "the kernel or the parent group does not offer this file" : "the group does not exist"
        }
        if hint.isEmpty && (number == EROFS || number == EACCES || number == EPERM) {
            hint = "the hierarchy must be writable for this process"
        }
        return CgroupError(
            .refused, controller: controller, "\(path)/\(file)", "cannot write '\(text)'", errno: number, hint: hint)
    }

    /// The content without trailing white space.
    func read(_ file: String) throws(CgroupError) -> String {
        do {
            return try File.text("\(path)/\(file)", limit: 4 << 20)
        } catch {
            throw CgroupError(
                .refused, controller: controller, "\(path)/\(file)", "cannot be read", errno: error.errno)
        }
    }

    /// The content, or nil when the file is not there or cannot be read now (some need the group to be used).
    func readIfPresent(_ file: String) -> String? { try? File.text("\(path)/\(file)", limit: 4 << 20) }

    /// A single number; nil when the file is absent or says `max`.
    func number(_ file: String) -> UInt64? { readIfPresent(file).flatMap { UInt64($0) } }

    /// A file of `key value` lines.
    func table(_ file: String) -> [String: UInt64] {
        readIfPresent(file).map { Self.table($0) } ?? [:]
    }

    static func table(_ text: String) -> [String: UInt64] {
        var result: [String: UInt64] = [:]
        for line in text.split(separator: "\n") {
            let fields = line.split(separator: " ", maxSplits: 1)
            if fields.count == 2, let value = UInt64(fields[1]) { result[String(fields[0])] = value }
        }
        return result
    }

    /// The processes listed directly in this group. Ones of foreign pid namespaces (0) are left out.
    func processes() throws(CgroupError) -> [pid_t] {
        Self.processes(try read("cgroup.procs"))
    }

    static func processes(_ text: String) -> [pid_t] {
        text.split(separator: "\n").compactMap { pid_t($0) }.filter { $0 > 0 }
    }

    /// The names of the sub-groups; none when the group is gone.
    func children() -> [String] {
        guard let directory = try? File.open(path, O_RDONLY | O_DIRECTORY) else { return [] }
        return GroupTree.groups(in: directory.raw).map { String(decoding: $0, as: UTF8.self) }
    }

    func child(_ name: String) -> ControlDirectory { ControlDirectory("\(path)/\(name)", controller) }
}

/// Waiting with a bound, on the monotonic clock.
struct Deadline {
    private let end: Int

    init(milliseconds: Int) { end = Self.now() + max(0, milliseconds) }

    var hasPassed: Bool { remaining == 0 }

    /// Milliseconds, never negative.
    var remaining: Int { max(0, end - Self.now()) }

    /// Sleeps for some milliseconds, but not past the end.
    func pause(_ milliseconds: Int) { usleep(useconds_t(max(1, min(milliseconds, remaining)) * 1000)) }

    private static func now() -> Int {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        return time.tv_sec * 1000 + time.tv_nsec / 1_000_000
    }
}
