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
        let descriptor: SharedFD?

        /// What a process reported as its failure.
        var failure: String { error == 0 ? text : "\(text): \(String(errno: error))" }
    }

    func send(_ kind: cs_kind, _ text: String = "", error: Int32 = 0, descriptor: Int32 = -1) throws {
        var text = text
        let result = text.withUTF8 { bytes in
            bytes.withMemoryRebound(to: CChar.self) {
                cs_send(socket, kind.rawValue, error, $0.baseAddress, $0.count, descriptor)
            }
        }
        if result != 0 { throw KernelError("send", "the container's channel", errno: errno) }
    }

    /// The next message; nil when the other side has closed.
    func receive() throws -> Message? {
        var message = cs_message()
        var descriptor: Int32 = -1
        let got = cs_receive(socket, &message, &descriptor)
        if got == 0 { return nil }
        guard got == 1 else { throw KernelError("receive", "the container's channel", errno: errno) }
        let length = Int(message.length)
        let text = withUnsafeBytes(of: &message.text) { String(decoding: $0[..<length], as: UTF8.self) }
        return Message(
            kind: message.kind, error: message.error, text: text,
            descriptor: descriptor < 0 ? nil : SharedFD(OwnedFD(adopting: descriptor)))
    }

    /// Waits for one kind, passing over others.
    ///
    /// - Returns: the descriptor that came along, if one did.
    /// - Throws: when the other side has closed.
    @discardableResult
    func await(_ kind: cs_kind) throws -> SharedFD? {
        while let message = try receive() {
            if message.kind == kind.rawValue { return message.descriptor }
        }
        throw RuntimeError("the runtime has ended")
    }
}
