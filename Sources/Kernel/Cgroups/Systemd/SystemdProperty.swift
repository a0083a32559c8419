import Glibc

/// A property of a unit, see org.freedesktop.systemd1(5).
package struct SystemdProperty: Sendable, Equatable {
    package let name: String
    package let value: DBusValue

    package init(_ name: String, _ value: DBusValue) {
        self.name = name
        self.value = value
    }

    /// As the manager's methods take them: `a(sv)`.
    static func list(_ properties: [SystemdProperty]) -> DBusValue {
        .array(of: "(sv)", properties.map { .structure([.string($0.name), .variant($0.value)]) })
    }

    /// Reads a property that a configuration names in an annotation: the value as text of GVariant: `true`, `5`,
    /// `uint64 7`, `1.5`, `'text'`, `['a', 'b']`. A name that ends in `Sec` counts seconds and becomes the `USec` of D-Bus.
    ///
    /// - Throws: `CgroupError` of kind `invalidValue`.
    package init(annotation name: String, _ text: String) throws(CgroupError) {
        let letters = name.utf8.allSatisfy { (65...90).contains($0) || (97...122).contains($0) }
        guard letters, (3...64).contains(name.utf8.count), let value = Self.parse(text) else {
            throw CgroupError(
                .invalidValue, controller: "systemd", "annotations.org.systemd.property.\(name)",
                "'\(text.prefix(100))' is no value that can be passed on",
                hint: "write it as true, uint64 5, 'text' or ['a']")
        }
        let stem = name.utf8.dropLast(3)
        guard name.hasSuffix("Sec"), let last = stem.last, (97...122).contains(last) else {
            self.init(name, value)
            return
        }
        guard let microseconds = Self.microseconds(value) else {
            throw CgroupError(
                .invalidValue, controller: "systemd", "annotations.org.systemd.property.\(name)",
                "'\(text.prefix(100))' is no number of seconds")
        }
        self.init(String(name.dropLast(3)) + "USec", .uint64(microseconds))
    }

    private static func microseconds(_ value: DBusValue) -> UInt64? {
        let seconds: Double
        switch value {
        case .int32(let number): seconds = Double(number)
        case .uint32(let number): seconds = Double(number)
        case .int64(let number): seconds = Double(number)
        case .uint64(let number):
            let (product, overflow) = number.multipliedReportingOverflow(by: 1_000_000)
            return overflow ? nil : product
        case .double(let number): seconds = number
        default: return nil
        }
        return seconds >= 0 && seconds < 1e12 ? UInt64(seconds * 1e6) : nil
    }

    private static func parse(_ text: String) -> DBusValue? {
        let words = text.split(separator: " ")
        if words.count == 2 {
            switch words[0] {
            case "int32": return Int32(words[1]).map { .int32($0) }
            case "uint32": return UInt32(words[1]).map { .uint32($0) }
            case "int64": return Int64(words[1]).map { .int64($0) }
            case "uint64": return UInt64(words[1]).map { .uint64($0) }
            case "double": return Double(words[1]).map { .double($0) }
            default: break
            }
        }
        if text == "true" || text == "false" { return .boolean(text == "true") }
        if let number = Int32(text) { return .int32(number) }
        if let string = quoted(Substring(text)) { return .string(string) }
        if text.contains("."), let number = Double(text), number.isFinite { return .double(number) }
        guard text.hasPrefix("["), text.hasSuffix("]") else { return nil }
        var strings: [DBusValue] = []
        for part in text.dropFirst().dropLast().split(separator: ",", omittingEmptySubsequences: false) {
            var part = part
            while part.first == " " { part.removeFirst() }
            while part.last == " " { part.removeLast() }
            guard let string = quoted(part) else { return nil }
            strings.append(.string(string))
        }
        return .array(of: "s", strings)
    }

    /// Between two quotes of a kind, without any inside and without escapes.
    private static func quoted(_ text: Substring) -> String? {
        guard let quote = text.first, quote == "'" || quote == "\"", text.count >= 2, text.last == quote else {
            return nil
        }
        let inner = text.dropFirst().dropLast()
        return inner.contains(quote) || inner.contains("\\") ? nil : String(inner)
    }
}

extension CgroupManager {
    /// What systemd has to know of the group's limits, so that it does not write others some day: the values that the
    /// group's files have now, of those that a change named.
    package func unitProperties(of change: CgroupResources) -> [SystemdProperty] {
        let files = Set(change.unified.map(\.file))
        var properties: [SystemdProperty] = []
        func number(_ controller: CgroupController, _ file: String, _ name: String, when changed: Bool) {
            guard changed || files.contains(file), let text = group(controller)?.directory.readIfPresent(file) else {
                return
            }
            if let value = text == "max" ? UInt64.max : UInt64(text) {
                properties.append(SystemdProperty(name, .uint64(value)))
            }
        }
        let memory = change.memory != CgroupResources.Memory()
        number(.memory, "memory.max", "MemoryMax", when: memory)
        number(.memory, "memory.swap.max", "MemorySwapMax", when: memory)
        number(.memory, "memory.low", "MemoryLow", when: memory)
        number(.memory, "memory.min", "MemoryMin", when: false)
        number(.memory, "memory.high", "MemoryHigh", when: false)
        number(.pids, "pids.max", "TasksMax", when: change.pidsLimit != nil)
        // 0 is an idle group's: to systemd (from 252 on) as its weight, which it writes as cpu.idle.
        let isWeighted = change.cpu.shares != nil || change.cpu.idle != nil
        if isWeighted || files.contains("cpu.weight") || files.contains("cpu.idle"), let cpu = group(.cpu)?.directory {
            if cpu.number("cpu.idle") == 1 {
                properties.append(SystemdProperty("CPUWeight", .uint64(0)))
            } else if let weight = cpu.number("cpu.weight"), weight > 0 {
                properties.append(SystemdProperty("CPUWeight", .uint64(weight)))
            }
        }
        if change.cpu.quota != nil || change.cpu.period != nil || files.contains("cpu.max") {
            properties += quotaProperties()
        }
        let isPreferred = change.blockIO.weight != nil || change.blockIO.isWeightLifted
        if isPreferred || !files.isDisjoint(with: ["io.weight", "io.bfq.weight"]), let weight = transferWeight() {
            properties.append(SystemdProperty("IOWeight", .uint64(weight)))
        }
        for (file, name, list) in [
            ("cpuset.cpus", "AllowedCPUs", change.cpu.cpus), ("cpuset.mems", "AllowedMemoryNodes", change.cpu.mems),
        ] where list != nil || files.contains(file) {
            guard let text = group(.cpuset)?.directory.readIfPresent(file), let mask = Self.mask(text) else { continue }
            properties.append(SystemdProperty(name, .array(of: "y", mask.map { .byte($0) })))
        }
        return properties
    }

    /// The weight of input and output, 1 to 10000, of which systemd makes BFQ's 1 to 1000: the same up to 100, then
    /// one for eleven. It writes both files.
    private func transferWeight() -> UInt64? {
        guard let io = group(.blkio)?.directory else { return nil }
        func number(_ file: String) -> UInt64? {
            // `100`, or `default 100` before the weights of single disks.
            let line = io.readIfPresent(file)?.split(separator: "\n").first { $0.first != nil && !$0.contains(":") }
            return line?.split(separator: " ").last.flatMap { UInt64($0) }
        }
        if let weight = number("io.bfq.weight") { return weight <= 100 ? weight : 100 + 11 * (weight - 100) }
        return number("io.weight")
    }

    /// `cpu.max` as microseconds in each second, rounded up to whole hundredths, which is what systemd keeps.
    private func quotaProperties() -> [SystemdProperty] {
        let fields = group(.cpu)?.directory.readIfPresent("cpu.max")?.split(separator: " ") ?? []
        guard fields.count == 2, let period = UInt64(fields[1]), (1...1_000_000_000).contains(period)
        else { return [] }
        var perSecond = UInt64.max
        if let quota = UInt64(fields[0]), quota < UInt64.max / 2_000_000 {
            perSecond = ((quota * 1_000_000 + period - 1) / period + 9_999) / 10_000 * 10_000
        }
        return [
            SystemdProperty("CPUQuotaPeriodUSec", .uint64(period)),
            SystemdProperty("CPUQuotaPerSecUSec", .uint64(perSecond)),
        ]
    }

    /// A list such as `0-2,9` as bits, the lowest first: `07 02`; nil for what is no list.
    package static func mask(_ list: String) -> [UInt8]? {
        var bytes: [UInt8] = []
        for range in list.split(separator: ",") {
            let ends = range.split(separator: "-", omittingEmptySubsequences: false).map { Int($0) }
            guard ends.count <= 2, let first = ends[0], let last = ends.count == 2 ? ends[1] : first, first >= 0,
                first <= last, last < 8192
            else { return nil }
            while bytes.count <= last / 8 { bytes.append(0) }
            for number in first...last { bytes[number / 8] |= 1 << UInt8(number % 8) }
        }
        return bytes
    }
}
