/// Finds the keys with which a user leaves a terminal, wherever the input is cut into pieces.
struct DetachKeys: Sendable {
    private let keys: [UInt8]
    /// Pressed so far: the beginning of `keys`. It is passed on if something else follows.
    private var held: [UInt8] = []

    /// ctrl-p, ctrl-q.
    static let usual: [UInt8] = [16, 17]
    /// The longest sequence.
    private static let limit = 32

    /// - Parameter text: keys between commas, `a` or `ctrl-a`; empty for the usual ones.
    /// - Throws: `DockerError` 400 for anything else.
    init(_ text: String) throws {
        guard !text.isEmpty else {
            keys = Self.usual
            return
        }
        let refusal = DockerError.badRequest("Invalid detach keys (\(text.prefix(80))) provided")
        keys = try text.split(separator: ",", omittingEmptySubsequences: false).map { key in
            guard let byte = Self.byte(key) else { throw refusal }
            return byte
        }
        guard keys.count <= Self.limit else { throw refusal }
    }

    private static func byte(_ key: Substring) -> UInt8? {
        let bytes = Array(key.utf8)
        if bytes.count == 1 { return bytes[0] }
        guard bytes.count == 6, key.hasPrefix("ctrl-") else { return nil }
        switch bytes[5] {
        case UInt8(ascii: "a")...UInt8(ascii: "z"): return bytes[5] - 96
        // @ [ \ ] ^ _
        case 64, 91...95: return bytes[5] - 64
        default: return nil
        }
    }

    /// What of the input is the program's.
    ///
    /// - Returns: `left` when the keys were pressed; what came before them is passed on.
    mutating func pass(_ bytes: some Sequence<UInt8>) -> (passed: [UInt8], left: Bool) {
        var passed: [UInt8] = []
        for byte in bytes {
            held.append(byte)
            if held == keys { return (passed, true) }
            while !keys.starts(with: held) { passed.append(held.removeFirst()) }
        }
        return (passed, false)
    }
}
