import Confinement

/// What a filter sees of a system call: `struct seccomp_data`.
struct SystemCall {
    var number: UInt32
    /// AUDIT_ARCH_*.
    var architecture: UInt32
    var arguments: [UInt64] = []

    static let x8664: UInt32 = 0xc000_003e
    static let i386: UInt32 = 0x4000_0003

    /// The 32-bit word at an offset, low words of arguments first.
    func word(at offset: UInt32) -> UInt32? {
        switch offset {
        case 0: return number
        case 4: return architecture
        case 8, 12: return 0
        case 16..<64 where offset % 4 == 0:
            let index = Int(offset - 16) / 8
            let value = index < arguments.count ? arguments[index] : 0
            return UInt32(truncatingIfNeeded: offset % 8 == 0 ? value : value >> 32)
        default: return nil
        }
    }
}

/// Runs a compiled filter as the kernel would.
///
/// - Returns: SECCOMP_RET_* with its data, or nil for a program that the kernel would not take.
func run(_ program: SeccompProgram, _ call: SystemCall) -> UInt32? {
    func instruction(_ index: Int) -> (code: UInt16, ifTrue: Int, ifFalse: Int, operand: UInt32) {
        let bytes = program.bytes[index * 8..<index * 8 + 8]
        let at = bytes.startIndex
        return (
            UInt16(bytes[at]) | UInt16(bytes[at + 1]) << 8, Int(bytes[at + 2]), Int(bytes[at + 3]),
            (4..<8).reduce(0) { $0 | UInt32(bytes[at + $1]) << UInt32(8 * ($1 - 4)) }
        )
    }
    var accumulator: UInt32 = 0
    var counter = 0
    while counter < program.instructionCount {
        let (code, ifTrue, ifFalse, operand) = instruction(counter)
        counter += 1
        switch code {
        case 0x20:
            guard let word = call.word(at: operand) else { return nil }
            accumulator = word
        case 0x54: accumulator &= operand
        case 0x05: counter += Int(operand)
        case 0x15: counter += accumulator == operand ? ifTrue : ifFalse
        case 0x25: counter += accumulator > operand ? ifTrue : ifFalse
        case 0x35: counter += accumulator >= operand ? ifTrue : ifFalse
        case 0x45: counter += accumulator & operand != 0 ? ifTrue : ifFalse
        case 0x06: return operand
        default: return nil
        }
    }
    return nil
}
