import CStage
import Glibc
import Kernel

/// One end of the socket between the runtime and the process that becomes the container.
///
/// Messages have one fixed size, whatever a configuration contains: there is no length to lie about.
struct Channel {
    let socket: Int32

    struct Message {
        let kind: UInt32
        /// An error number, or 0.
        let error: Int32
        let text: String
        let descriptors: [SharedFD]

        /// The only one that comes along.
        var descriptor: SharedFD? { descriptors.first }
        /// A set of signals, as digits; every one when they are no number.
        var signals: UInt64 { UInt64(text, radix: 16) ?? .max }

        /// What a process reported as its failure.
        var failure: String { error == 0 ? text : "\(text): \(String(errno: error))" }
    }

    func send(_ kind: cs_kind, _ text: String = "", error: Int32 = 0, descriptors: [Int32] = []) throws {
        var text = text
        let result = text.withUTF8 { bytes in
            bytes.withMemoryRebound(to: CChar.self) {
                cs_send(
                    socket, kind.rawValue, error, $0.baseAddress, $0.count, descriptors, Int32(descriptors.count))
            }
        }
        if result != 0 { throw KernelError("send", "the container's channel", errno: errno) }
    }

    /// The next message; nil when the other side has closed.
    ///
    /// - Parameter most: how many descriptors may come along.
    func receive(most: Int32 = 1) throws -> Message? {
        var message = cs_message()
        var descriptors = [Int32](repeating: -1, count: Int(most))
        var count = most
        let got = cs_receive(socket, &message, &descriptors, &count)
        if got == 0 { return nil }
        guard got == 1 else { throw KernelError("receive", "the container's channel", errno: errno) }
        let length = Int(message.length)
        let text = withUnsafeBytes(of: &message.text) { String(decoding: $0[..<length], as: UTF8.self) }
        return Message(
            kind: message.kind, error: message.error, text: text,
            descriptors: descriptors[..<Int(count)].map { SharedFD(OwnedFD(adopting: $0)) })
    }

    /// Waits for one kind, passing over others.
    ///
    /// - Parameter most: how many descriptors may come along.
    /// - Throws: when the other side has closed.
    @discardableResult
    func await(_ kind: cs_kind, most: Int32 = 1) throws -> Message {
        while let message = try receive(most: most) {
            if message.kind == kind.rawValue { return message }
        }
        throw RuntimeError("the runtime has ended")
    }
}
