/// A value of D-Bus, of the types that systemd's manager needs; see "Type System" in the D-Bus specification.
package enum DBusValue: Sendable, Equatable {
    case byte(UInt8)
    case boolean(Bool)
    case int32(Int32)
    case uint32(UInt32)
    case int64(Int64)
    case uint64(UInt64)
    case double(Double)
    case string(String)
    case objectPath(String)
    case signature(String)
    indirect case variant(DBusValue)
    /// The type of the elements has to be said, because there may be none.
    case array(of: String, [DBusValue])
    /// Also an entry of a dictionary, when it was read.
    case structure([DBusValue])

    /// The type in one word: `a(sv)`.
    package var signature: String {
        switch self {
        case .byte: "y"
        case .boolean: "b"
        case .int32: "i"
        case .uint32: "u"
        case .int64: "x"
        case .uint64: "t"
        case .double: "d"
        case .string: "s"
        case .objectPath: "o"
        case .signature: "g"
        case .variant: "v"
        case .array(let element, _): "a" + element
        case .structure(let fields): "(" + fields.map(\.signature).joined() + ")"
        }
    }

    /// The text of a string, path or signature.
    package var text: String? {
        switch self {
        case .string(let text), .objectPath(let text), .signature(let text): text
        default: nil
        }
    }
}

/// Bytes that are no D-Bus message, or one that is too large.
package struct DBusFault: Error {
    package let reason: String
}

/// Writes values as bytes, little-endian, aligned as "Marshaling" in the D-Bus specification says.
package struct DBusWriter {
    package private(set) var bytes: [UInt8] = []

    package init() {}

    /// Pads to a multiple.
    package mutating func align(_ boundary: Int) {
        while bytes.count % boundary != 0 { bytes.append(0) }
    }

    package mutating func put(_ value: DBusValue) {
        switch value {
        case .byte(let byte): bytes.append(byte)
        case .boolean(let flag): number(UInt32(flag ? 1 : 0))
        case .int32(let value): number(UInt32(bitPattern: value))
        case .uint32(let value): number(value)
        case .int64(let value): number(UInt64(bitPattern: value))
        case .uint64(let value): number(value)
        case .double(let value): number(value.bitPattern)
        case .string(let text), .objectPath(let text):
            number(UInt32(text.utf8.count))
            bytes += Array(text.utf8) + [0]
        case .signature(let text): bytes += [UInt8(truncatingIfNeeded: text.utf8.count)] + Array(text.utf8) + [0]
        case .variant(let inner):
            put(.signature(inner.signature))
            put(inner)
        case .array(let element, let elements):
            number(UInt32(0))
            let place = bytes.count - 4
            align(DBusType.alignment(element.utf8.first ?? 0))
            let start = bytes.count
            for element in elements { put(element) }
            // The padding before the first element does not count.
            let length = UInt32(bytes.count - start)
            for index in 0..<4 { bytes[place + index] = UInt8(truncatingIfNeeded: length >> UInt32(8 * index)) }
        case .structure(let fields):
            align(8)
            for field in fields { put(field) }
        }
    }

    private mutating func number<Number: FixedWidthInteger & UnsignedInteger>(_ value: Number) {
        align(MemoryLayout<Number>.size)
        for index in 0..<MemoryLayout<Number>.size {
            bytes.append(UInt8(truncatingIfNeeded: value >> Number(8 * index)))
        }
    }
}

/// What signatures say.
enum DBusType {
    static func alignment(_ letter: UInt8) -> Int {
        switch letter {
        case UInt8(ascii: "y"), UInt8(ascii: "g"), UInt8(ascii: "v"): 1
        case UInt8(ascii: "n"), UInt8(ascii: "q"): 2
        case UInt8(ascii: "x"), UInt8(ascii: "t"), UInt8(ascii: "d"), UInt8(ascii: "("), UInt8(ascii: "{"): 8
        default: 4
        }
    }

    /// Splits the first complete type off.
    static func first(_ signature: ArraySlice<UInt8>, depth: Int = 0) throws(DBusFault) -> (
        type: ArraySlice<UInt8>, rest: ArraySlice<UInt8>
    ) {
        guard let letter = signature.first, depth < 32 else { throw DBusFault(reason: "its signature is cut off") }
        switch letter {
        case UInt8(ascii: "a"):
            let element = try first(signature.dropFirst(), depth: depth + 1)
            return (signature[..<element.rest.startIndex], element.rest)
        case UInt8(ascii: "("), UInt8(ascii: "{"):
            let end = letter == UInt8(ascii: "(") ? UInt8(ascii: ")") : UInt8(ascii: "}")
            var rest = signature.dropFirst()
            while rest.first != end { rest = try first(rest, depth: depth + 1).rest }
            rest = rest.dropFirst()
            return (signature[..<rest.startIndex], rest)
        default: return (signature.prefix(1), signature.dropFirst())
        }
    }
}

/// Reads values from bytes that somebody else wrote.
struct DBusReader {
    private let bytes: [UInt8]
    private let isBigEndian: Bool
    /// What has been read.
    private(set) var position = 0

    init(_ bytes: [UInt8], isBigEndian: Bool) {
        self.bytes = bytes
        self.isBigEndian = isBigEndian
    }

    /// Reads values of all the types of a signature.
    mutating func values(_ signature: String) throws(DBusFault) -> [DBusValue] {
        var rest = Array(signature.utf8)[...]
        var values: [DBusValue] = []
        while !rest.isEmpty {
            let (type, others) = try DBusType.first(rest)
            values.append(try value(type, depth: 0))
            rest = others
        }
        return values
    }

    mutating func align(_ boundary: Int) throws(DBusFault) {
        _ = try take((boundary - position % boundary) % boundary)
    }

    private mutating func take(_ count: Int) throws(DBusFault) -> ArraySlice<UInt8> {
        guard count >= 0, count <= bytes.count - position else { throw DBusFault(reason: "it is cut off") }
        position += count
        return bytes[(position - count)..<position]
    }

    private mutating func number<Number: FixedWidthInteger & UnsignedInteger>(
        _: Number.Type
    ) throws(DBusFault) -> Number {
        let size = MemoryLayout<Number>.size
        try align(size)
        let raw = try take(size)
        var result: Number = 0
        for byte in isBigEndian ? Array(raw) : Array(raw.reversed()) { result = result << 8 | Number(byte) }
        return result
    }

    private mutating func text(_ count: Int) throws(DBusFault) -> String {
        let raw = try take(count)
        guard try take(1).first == 0 else { throw DBusFault(reason: "a text in it has no end") }
        return String(decoding: raw, as: UTF8.self)
    }

    private mutating func value(_ type: ArraySlice<UInt8>, depth: Int) throws(DBusFault) -> DBusValue {
        guard let letter = type.first, depth < 32 else { throw DBusFault(reason: "it is nested too deep") }
        switch letter {
        case UInt8(ascii: "y"): return .byte(try take(1).first ?? 0)
        case UInt8(ascii: "b"): return .boolean(try number(UInt32.self) != 0)
        case UInt8(ascii: "n"): return .int32(Int32(Int16(bitPattern: try number(UInt16.self))))
        case UInt8(ascii: "q"): return .uint32(UInt32(try number(UInt16.self)))
        case UInt8(ascii: "i"): return .int32(Int32(bitPattern: try number(UInt32.self)))
        case UInt8(ascii: "u"), UInt8(ascii: "h"): return .uint32(try number(UInt32.self))
        case UInt8(ascii: "x"): return .int64(Int64(bitPattern: try number(UInt64.self)))
        case UInt8(ascii: "t"): return .uint64(try number(UInt64.self))
        case UInt8(ascii: "d"): return .double(Double(bitPattern: try number(UInt64.self)))
        case UInt8(ascii: "s"): return .string(try text(Int(try number(UInt32.self))))
        case UInt8(ascii: "o"): return .objectPath(try text(Int(try number(UInt32.self))))
        case UInt8(ascii: "g"): return .signature(try text(Int(try take(1).first ?? 0)))
        case UInt8(ascii: "v"):
            let signature = Array(try text(Int(try take(1).first ?? 0)).utf8)[...]
            let (inner, rest) = try DBusType.first(signature)
            guard rest.isEmpty else { throw DBusFault(reason: "a variant in it has several types") }
            return .variant(try value(inner, depth: depth + 1))
        case UInt8(ascii: "a"): return try array(type.dropFirst(), depth: depth)
        case UInt8(ascii: "("), UInt8(ascii: "{"):
            try align(8)
            var fields: [DBusValue] = []
            var rest = type.dropFirst().dropLast()
            while !rest.isEmpty {
                let (field, others) = try DBusType.first(rest)
                fields.append(try value(field, depth: depth + 1))
                rest = others
            }
            guard !fields.isEmpty else { throw DBusFault(reason: "a structure in it is empty") }
            return .structure(fields)
        default: throw DBusFault(reason: "it has a value of an unknown type")
        }
    }

    private mutating func array(_ element: ArraySlice<UInt8>, depth: Int) throws(DBusFault) -> DBusValue {
        let length = Int(try number(UInt32.self))
        try align(DBusType.alignment(element.first ?? 0))
        guard length <= bytes.count - position else { throw DBusFault(reason: "it is cut off") }
        let end = position + length
        var elements: [DBusValue] = []
        while position < end { elements.append(try value(element, depth: depth + 1)) }
        guard position == end else { throw DBusFault(reason: "an array in it has another length than it says") }
        return .array(of: String(decoding: element, as: UTF8.self), elements)
    }
}
