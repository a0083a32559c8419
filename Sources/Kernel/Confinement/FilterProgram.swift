/// One instruction of classic BPF, see linux/filter.h.
struct FilterInstruction: Equatable {
    /// The codes that filters are made of: BPF_LD | BPF_W | BPF_ABS and so on.
    enum Code: UInt16 {
        case load = 0x20
        case and = 0x54
        case jump = 0x05
        case jumpIfEqual = 0x15
        case jumpIfGreater = 0x25
        case jumpIfGreaterOrEqual = 0x35
        case jumpIfSet = 0x45
        case answer = 0x06
    }

    let code: Code
    /// How many instructions a conditional jump skips.
    let ifTrue: UInt8
    let ifFalse: UInt8
    let operand: UInt32

    init(_ code: Code, _ operand: UInt32, _ ifTrue: UInt8 = 0, _ ifFalse: UInt8 = 0) {
        self.code = code
        self.operand = operand
        self.ifTrue = ifTrue
        self.ifFalse = ifFalse
    }

    /// - Parameter bytes: eight, the kernel's structure; nil for a code that is none of ours.
    init?(_ bytes: ArraySlice<UInt8>) {
        let at = bytes.startIndex
        guard let code = Code(rawValue: UInt16(bytes[at]) | UInt16(bytes[at + 1]) << 8) else { return nil }
        self.code = code
        ifTrue = bytes[at + 2]
        ifFalse = bytes[at + 3]
        operand = (4..<8).reduce(0) { $0 | UInt32(bytes[at + $1]) << UInt32(8 * ($1 - 4)) }
    }

    var bytes: [UInt8] {
        [UInt8(code.rawValue & 255), UInt8(code.rawValue >> 8), ifTrue, ifFalse]
            + [0, 8, 16, 24].map { UInt8(truncatingIfNeeded: operand >> $0) }
    }

    /// Offsets in `struct seccomp_data`.
    static let numberOffset: UInt32 = 0
    static let architectureOffset: UInt32 = 4
}

/// A filter's instructions as values, to be rewritten.
struct FilterProgram: Equatable {
    var instructions: [FilterInstruction]

    /// - Parameter bytes: whole instructions; nil for a program with others than ours.
    init?(bytes: [UInt8]) {
        instructions = []
        for start in stride(from: 0, to: bytes.count, by: 8) {
            guard let instruction = FilterInstruction(bytes[start..<start + 8]) else { return nil }
            instructions.append(instruction)
        }
    }

    init(_ instructions: [FilterInstruction]) { self.instructions = instructions }

    var bytes: [UInt8] { instructions.flatMap(\.bytes) }
}

extension FilterProgram {
    /// A shorter program that answers the same.
    ///
    /// libseccomp writes an instruction or two for each system call that is named; what the kernel makes of a filter when
    /// it is loaded (checks, translations, machine code) takes time by the instruction, at every start of a process.
    /// Most profiles allow whole ranges of neighbours, so this searches ranges instead. libseccomp's code that looks at
    /// arguments is kept as it is.
    ///
    /// - Parameters:
    ///   - architecture: AUDIT_ARCH_* that the program is for.
    ///   - isChecked: calls of other architectures do not come to it.
    /// - Returns: nil for a program that is not understood, or does not get shorter.
    func shortened(for architecture: UInt32, isChecked: Bool) -> FilterProgram? {
        guard let ranges = ranges(architecture, isOwn: true) else { return nil }
        var code: [FilterInstruction] = []
        if !isChecked {
            guard let others = self.ranges(architecture, isOwn: false), others.count == 1,
                case .answer(let answer) = others[0].outcome
            else { return nil }
            code = [
                FilterInstruction(.load, FilterInstruction.architectureOffset),
                FilterInstruction(.jumpIfEqual, architecture, 1, 0),
                FilterInstruction(.answer, answer),
            ]
        }
        code.append(FilterInstruction(.load, FilterInstruction.numberOffset))
        let kept = reachable(from: ranges.compactMap { if case .arguments(let at) = $0.outcome { at } else { nil } })
        let steps = Self.search(ranges[...])
        code += steps.enumerated().map { position, step in
            switch step {
            case .instruction(let instruction): return instruction
            case .arguments(let index):
                let distance = steps.count - position - 1 + kept.count { $0 < index }
                return FilterInstruction(.jump, UInt32(distance))
            }
        }
        code += kept.map { relinked($0, among: kept) }
        return code.count < instructions.count ? FilterProgram(code) : nil
    }

    /// What the program comes to by architecture and number alone.
    private enum Outcome: Equatable {
        case answer(UInt32)
        /// It goes on with the load of something else, at this index.
        case arguments(Int)
    }

    /// Numbers with one outcome, up to where the next range begins.
    private struct Range {
        let first: UInt32
        let outcome: Outcome
    }

    /// All numbers, in order.
    ///
    /// - Parameter isOwn: calls of `architecture`; otherwise those of any other.
    /// - Returns: nil for a program that does more than to compare.
    private func ranges(_ architecture: UInt32, isOwn: Bool) -> [Range]? {
        var firsts: Set<UInt32> = [0]
        for instruction in instructions {
            switch instruction.code {
            case .jumpIfEqual: firsts.formUnion([instruction.operand, instruction.operand &+ 1])
            case .jumpIfGreater: firsts.insert(instruction.operand &+ 1)
            case .jumpIfGreaterOrEqual: firsts.insert(instruction.operand)
            default: break
            }
        }
        var ranges: [Range] = []
        for first in firsts.sorted() {
            guard let outcome = outcome(architecture, isOwn: isOwn, number: first) else { return nil }
            if ranges.last?.outcome != outcome { ranges.append(Range(first: first, outcome: outcome)) }
        }
        return ranges
    }

    private func outcome(_ architecture: UInt32, isOwn: Bool, number: UInt32) -> Outcome? {
        var holdsNumber = false
        var isLoaded = false
        var counter = 0
        while counter < instructions.count {
            let instruction = instructions[counter]
            counter += 1
            switch instruction.code {
            case .load:
                isLoaded = true
                switch instruction.operand {
                case FilterInstruction.numberOffset: holdsNumber = true
                case FilterInstruction.architectureOffset: holdsNumber = false
                default: return .arguments(counter - 1)
                }
            case .answer: return .answer(instruction.operand)
            case .jump: counter += Int(instruction.operand)
            case .jumpIfEqual where isLoaded && !holdsNumber:
                // What another architecture is compared with cannot be told.
                guard isOwn || instruction.operand == architecture else { return nil }
                let isEqual = isOwn && instruction.operand == architecture
                counter += Int(isEqual ? instruction.ifTrue : instruction.ifFalse)
            case .jumpIfEqual where isLoaded:
                counter += Int(number == instruction.operand ? instruction.ifTrue : instruction.ifFalse)
            case .jumpIfGreater where holdsNumber:
                counter += Int(number > instruction.operand ? instruction.ifTrue : instruction.ifFalse)
            case .jumpIfGreaterOrEqual where holdsNumber:
                counter += Int(number >= instruction.operand ? instruction.ifTrue : instruction.ifFalse)
            default: return nil
            }
        }
        return nil
    }

    /// The instructions that are needed to go on from some, in order.
    private func reachable(from starts: [Int]) -> [Int] {
        var found: Set<Int> = []
        var left = starts
        while let index = left.popLast() {
            guard instructions.indices.contains(index), found.insert(index).inserted else { continue }
            let instruction = instructions[index]
            switch instruction.code {
            case .answer: break
            case .jump: left.append(index + 1 + Int(instruction.operand))
            case .load, .and: left.append(index + 1)
            default: left += [index + 1 + Int(instruction.ifTrue), index + 1 + Int(instruction.ifFalse)]
            }
        }
        return found.sorted()
    }

    /// An instruction with its jumps as they are when only `kept` are there: never longer than before.
    private func relinked(_ index: Int, among kept: [Int]) -> FilterInstruction {
        let instruction = instructions[index]
        func skipped(_ count: Int) -> Int { kept.count { $0 > index && $0 < index + 1 + count } }
        switch instruction.code {
        case .answer, .load, .and: return instruction
        case .jump:
            return FilterInstruction(instruction.code, UInt32(skipped(Int(instruction.operand))))
        default:
            return FilterInstruction(
                instruction.code, instruction.operand, UInt8(skipped(Int(instruction.ifTrue))),
                UInt8(skipped(Int(instruction.ifFalse))))
        }
    }

    /// A step of a search.
    private enum Step {
        case instruction(FilterInstruction)
        /// On to what is at this index of the program.
        case arguments(Int)
    }

    /// A binary search by where ranges begin.
    private static func search(_ ranges: ArraySlice<Range>) -> [Step] {
        if ranges.count == 1, let range = ranges.first {
            switch range.outcome {
            case .answer(let value): return [.instruction(FilterInstruction(.answer, value))]
            case .arguments(let index): return [.arguments(index)]
            }
        }
        let middle = ranges.startIndex + ranges.count / 2
        let (lower, upper) = (search(ranges[..<middle]), search(ranges[middle...]))
        let first = ranges[middle].first
        guard lower.count <= UInt8.max else {
            return [
                .instruction(FilterInstruction(.jumpIfGreaterOrEqual, first, 0, 1)),
                .instruction(FilterInstruction(.jump, UInt32(lower.count))),
            ] + lower + upper
        }
        let test = FilterInstruction(.jumpIfGreaterOrEqual, first, UInt8(lower.count), 0)
        return [.instruction(test)] + lower + upper
    }
}
