import DeviceNodes
import Testing

/// A use of a device, in a space small enough to ask everything.
struct Question: CustomStringConvertible {
    let device: DeviceClass
    let major: UInt32
    let minor: UInt32
    let access: DeviceAccess

    var description: String { "\(device.rawValue) \(major):\(minor) \(access)" }

    static let all: [Question] = [DeviceClass.block, .char].flatMap { device in
        (0...2).flatMap { major in
            (0...2).flatMap { minor in
                (1...7).map {
                    Question(
                        device: device, major: UInt32(major), minor: UInt32(minor),
                        access: DeviceAccess(rawValue: UInt8($0)))
                }
            }
        }
    }

    /// By the definition: the last rule that matches decides, for each kind of access by itself.
    func answer(_ rules: [DeviceRule]) -> Bool {
        [DeviceAccess.mknod, .read, .write].filter { access.contains($0) }.allSatisfy { one in
            rules.last { rule in
                (rule.device == .all || rule.device == device) && (rule.major ?? major) == major
                    && (rule.minor ?? minor) == minor && rule.access.contains(one)
            }?.allow ?? false
        }
    }
}

/// SplitMix64: the same rules for the same seed.
struct Numbers {
    private var state: UInt64

    init(seed: UInt64) { state = seed }

    mutating func next(_ bound: UInt64) -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var mixed = state
        mixed = (mixed ^ (mixed >> 30)) &* 0xbf58_476d_1ce4_e5b9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94d0_49bb_1331_11eb
        return (mixed ^ (mixed >> 31)) % bound
    }

    mutating func rules() -> [DeviceRule] {
        (0..<next(9)).map { _ in
            let device = [DeviceClass.all, .block, .char, .char][Int(next(4))]
            let major = next(4)
            let minor = next(4)
            return DeviceRule(
                allow: next(2) == 0, device, major: major == 3 ? nil : UInt32(major),
                minor: minor == 3 ? nil : UInt32(minor),
                access: next(3) == 0 ? .all : DeviceAccess(rawValue: UInt8(next(8))))
        }
    }
}

/// Runs a device program as the kernel would: the instructions it uses, 32-bit registers, no jump backwards.
///
/// - Returns: the result, or nil for a program that the kernel would not take.
func run(_ program: [UInt64], _ question: Question) -> UInt32? {
    let type: UInt32 = question.device == .block ? 1 : 2
    let context = [UInt32(question.access.rawValue) << 16 | type, question.major, question.minor]
    var registers = [UInt32?](repeating: nil, count: 11)
    var counter = 0
    while counter < program.count {
        let word = program[counter]
        let target = Int(word >> 8 & 15)
        let source = Int(word >> 12 & 15)
        let offset = Int(Int16(bitPattern: UInt16(word >> 16 & 0xffff)))
        let immediate = UInt32(word >> 32)
        counter += 1
        switch word & 0xff {
        case 0x61:
            guard source == 1, offset % 4 == 0, context.indices.contains(offset / 4) else { return nil }
            registers[target] = context[offset / 4]
        case 0xbc:
            guard let value = registers[source] else { return nil }
            registers[target] = value
        case 0xb4: registers[target] = immediate
        case 0x54:
            guard let value = registers[target] else { return nil }
            registers[target] = value & immediate
        case 0x74:
            guard let value = registers[target] else { return nil }
            registers[target] = value >> immediate
        case 0x56, 0x16:
            guard let value = registers[target], offset >= 0 else { return nil }
            if (word & 0xff == 0x56) == (value != immediate) { counter += offset }
        case 0x95: return registers[0]
        default: return nil
        }
    }
    return nil
}
