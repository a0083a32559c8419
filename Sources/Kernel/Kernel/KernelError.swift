import Glibc

/// A system call that failed: which one, on what, and why.
///
/// The text is built only when it is printed. `hint` says what to do next where there is something to say.
@usableFromInline
package struct KernelError: Error, Sendable, Equatable, CustomStringConvertible {
    /// The call, as its manual page names it: `openat2`, `mount(overlay)`.
    package let operation: String
    /// The object: a path, a descriptor's role, a process.
    package let subject: String
    /// The error number, see errno(3).
    package let errno: Int32
    /// What to do next; empty when there is nothing to add.
    package let hint: String

    @usableFromInline
    package init(_ operation: String, _ subject: String = "", errno: Int32, hint: String = "") {
        self.operation = operation
        self.subject = subject
        self.errno = errno
        self.hint = hint
    }

    /// The disk is full, or the quota on it is.
    package var isOutOfSpace: Bool { [ENOSPC, EDQUOT].contains(errno) }

    @usableFromInline
    package var description: String {
        let object = subject.isEmpty ? "" : " \(subject)"
        let next = hint.isEmpty ? "" : " (\(hint))"
        return "\(operation)\(object): \(String(errno: errno))\(next)"
    }
}

extension String {
    /// The text of an error number, as strerror(3) has it.
    package init(errno number: Int32) {
        var buffer = [CChar](repeating: 0, count: 128)
        // __xpg_strerror_r is not exported to Swift; strerror of glibc is thread-safe for known numbers (2.32 and
        // later).
        guard let text = strerror(number) else {
            self = "error \(number)"
            return
        }
        strncpy(&buffer, text, buffer.count - 1)
        self = String(decoding: buffer.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }
}

/// The one funnel of system calls: repeats on EINTR and turns -1 into a `KernelError`. It is inlinable because a generic
/// function that is not specialised looks its conformances up at run time.
@discardableResult
@inlinable
package func systemCall<Result: SignedInteger>(
    _ operation: @autoclosure () -> String, _ subject: @autoclosure () -> String = "",
    _ body: () -> Result
) throws(KernelError) -> Result {
    while true {
        let result = body()
        if result != -1 { return result }
        let number = errno
        if number == EINTR { continue }
        throw KernelError(operation(), subject(), errno: number)
    }
}
