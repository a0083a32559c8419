/// Where a device is on PCI: `0000:65:00.0`.
package struct PCIAddress: Sendable, Hashable, Comparable, CustomStringConvertible {
    package let domain: UInt32
    package let bus: UInt8
    /// At most 31.
    package let device: UInt8
    /// At most 7.
    package let function: UInt8

    /// nil when device or function is out of range.
    package init?(domain: UInt32, bus: UInt8, device: UInt8, function: UInt8) {
        guard device < 32, function < 8 else { return nil }
        self.domain = domain
        self.bus = bus
        self.device = device
        self.function = function
    }

    /// From what the kernel writes (`0000:65:00.0`, or more digits of domain) or NVML (`00000000:65:00.0`), in letters of
    /// either case; nil for anything else.
    package init?(_ text: some StringProtocol) {
        let parts = Substring(text).utf8.split(separator: UInt8(ascii: ":"), omittingEmptySubsequences: false)
        guard parts.count == 3, (4...8).contains(parts[0].count), parts[1].count == 2 else { return nil }
        let last = parts[2].split(separator: UInt8(ascii: "."), omittingEmptySubsequences: false)
        guard last.count == 2, last[0].count == 2, last[1].count == 1,
            let domain = Self.number(parts[0]), let bus = Self.number(parts[1]),
            let device = Self.number(last[0]), let function = Self.number(last[1])
        else { return nil }
        self.init(domain: domain, bus: UInt8(bus), device: UInt8(device), function: UInt8(function))
    }

    /// Hexadecimal digits only, without a sign.
    private static func number(_ digits: Substring.UTF8View.SubSequence) -> UInt32? {
        guard let first = digits.first, first != UInt8(ascii: "+"), first != UInt8(ascii: "-") else { return nil }
        return UInt32(Substring(digits), radix: 16)
    }

    package var description: String {
        "\(Self.hexadecimal(domain, 4)):\(Self.hexadecimal(UInt32(bus), 2)):\(Self.hexadecimal(UInt32(device), 2)).\(function)"
    }

    private static func hexadecimal(_ number: UInt32, _ digits: Int) -> String {
        let text = String(number, radix: 16)
        return String(repeating: "0", count: max(0, digits - text.count)) + text
    }

    package static func < (left: PCIAddress, right: PCIAddress) -> Bool {
        (left.domain, left.bus, left.device, left.function) < (right.domain, right.bus, right.device, right.function)
    }
}
