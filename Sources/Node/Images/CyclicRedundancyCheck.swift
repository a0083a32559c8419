/// The check sum of gzip (RFC 1952, section 8; CRC-32 of ISO 3309), eight bytes at a step.
struct CyclicRedundancyCheck {
    private var register: UInt32 = 0xffff_ffff
    /// Bytes so far.
    private(set) var count: UInt64 = 0

    /// Of the bytes so far.
    var value: UInt32 { ~register }

    mutating func update(_ bytes: UnsafeRawBufferPointer) {
        count += UInt64(bytes.count)
        var crc = register
        var index = 0
        Self.table.withUnsafeBufferPointer { table in
            while index + 8 <= bytes.count {
                let word = bytes.loadUnaligned(fromByteOffset: index, as: UInt64.self).littleEndian ^ UInt64(crc)
                crc = table[0x700 + Int(word & 0xff)] ^ table[0x600 + Int(word >> 8 & 0xff)]
                crc ^= table[0x500 + Int(word >> 16 & 0xff)] ^ table[0x400 + Int(word >> 24 & 0xff)]
                crc ^= table[0x300 + Int(word >> 32 & 0xff)] ^ table[0x200 + Int(word >> 40 & 0xff)]
                crc ^= table[0x100 + Int(word >> 48 & 0xff)] ^ table[Int(word >> 56)]
                index += 8
            }
            while index < bytes.count {
                crc = table[Int((crc ^ UInt32(bytes[index])) & 0xff)] ^ (crc >> 8)
                index += 1
            }
        }
        register = crc
    }

    /// Row n has what a byte contributes when n more bytes follow it in the same step.
    private static let table: [UInt32] = {
        var table: [UInt32] = []
        table.reserveCapacity(2048)
        for byte in 0..<UInt32(256) {
            var value = byte
            for _ in 0..<8 { value = value & 1 == 0 ? value >> 1 : (value >> 1) ^ 0xedb8_8320 }
            table.append(value)
        }
        for index in 256..<2048 {
            let before = table[index - 256]
            table.append(table[Int(before & 0xff)] ^ (before >> 8))
        }
        return table
    }()
}
