/// A message of D-Bus; see "Message Protocol" in the D-Bus specification.
package struct DBusMessage: Sendable, Equatable {
    package enum Kind: UInt8, Sendable {
        case call = 1
        case reply = 2
        case error = 3
        case signal = 4
    }

    package var kind: Kind
    /// Not zero; a reply names that of its call.
    package var serial: UInt32
    package var path: String?
    package var interface: String?
    package var member: String?
    package var errorName: String?
    package var replySerial: UInt32?
    package var destination: String?
    package var body: [DBusValue]

    package init(
        _ kind: Kind, serial: UInt32, path: String? = nil, interface: String? = nil, member: String? = nil,
        errorName: String? = nil, replySerial: UInt32? = nil, destination: String? = nil, body: [DBusValue] = []
    ) {
        self.kind = kind
        self.serial = serial
        self.path = path
        self.interface = interface
        self.member = member
        self.errorName = errorName
        self.replySerial = replySerial
        self.destination = destination
        self.body = body
    }

    /// The bytes that go over the wire.
    package func encoded() -> [UInt8] {
        var content = DBusWriter()
        for value in body { content.put(value) }
        var fields: [DBusValue] = []
        func field(_ code: UInt8, _ value: DBusValue?) {
            if let value { fields.append(.structure([.byte(code), .variant(value)])) }
        }
        field(1, path.map { .objectPath($0) })
        field(2, interface.map { .string($0) })
        field(3, member.map { .string($0) })
        field(4, errorName.map { .string($0) })
        field(5, replySerial.map { .uint32($0) })
        field(6, destination.map { .string($0) })
        if !body.isEmpty { field(8, .signature(body.map(\.signature).joined())) }
        var header = DBusWriter()
        for byte in [UInt8(ascii: "l"), kind.rawValue, 0, 1] { header.put(.byte(byte)) }
        header.put(.uint32(UInt32(content.bytes.count)))
        header.put(.uint32(serial))
        header.put(.array(of: "(yv)", fields))
        header.align(8)
        return header.bytes + content.bytes
    }

    /// The most bytes that a message may have here: the manager's answers to us have a few hundred.
    static let limit = 1 << 20

    /// Takes the first message off the bytes that have come.
    ///
    /// - Returns: nil while it is not there as a whole.
    /// - Throws: `DBusFault` for what is no message, or a larger one than `limit`.
    package static func take(from input: inout [UInt8]) throws(DBusFault) -> DBusMessage? {
        guard input.count >= 16 else { return nil }
        guard input[0] == UInt8(ascii: "l") || input[0] == UInt8(ascii: "B"), input[3] == 1 else {
            throw DBusFault(reason: "it is no message of version 1")
        }
        let isBigEndian = input[0] == UInt8(ascii: "B")
        func number(_ place: Int) -> Int {
            let raw = input[place..<(place + 4)]
            return (isBigEndian ? Array(raw) : raw.reversed()).reduce(0) { $0 << 8 | Int($1) }
        }
        let (bodyLength, fieldsLength) = (number(4), number(12))
        guard bodyLength <= limit, fieldsLength <= limit else { throw DBusFault(reason: "it is too large") }
        let start = 16 + (fieldsLength + 7) / 8 * 8
        guard input.count >= start + bodyLength else { return nil }
        var header = DBusReader(Array(input[..<start]), isBigEndian: isBigEndian)
        let head = try header.values("yyyyuua(yv)")
        var content = DBusReader(Array(input[start..<(start + bodyLength)]), isBigEndian: isBigEndian)
        input.removeFirst(start + bodyLength)
        guard case .byte(let letter) = head[1], case .uint32(let serial) = head[5], case .array(_, let fields) = head[6]
        else { throw DBusFault(reason: "its header makes no sense") }
        // Other kinds may come and are to be ignored.
        var message = DBusMessage(Kind(rawValue: letter) ?? .signal, serial: serial)
        var signature = ""
        for case .structure(let field) in fields {
            guard field.count == 2, case .byte(let code) = field[0], case .variant(let value) = field[1] else {
                continue
            }
            switch code {
            case 1: message.path = value.text
            case 2: message.interface = value.text
            case 3: message.member = value.text
            case 4: message.errorName = value.text
            case 5: if case .uint32(let number) = value { message.replySerial = number }
            case 6: message.destination = value.text
            case 8: signature = value.text ?? ""
            default: break
            }
        }
        message.body = try content.values(signature)
        return message
    }
}
