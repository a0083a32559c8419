/// The majors of character devices, by the name that their driver gave them: /proc/devices, see proc_devices(5).
package struct DeviceMajors: Sendable, Equatable {
    private var numbers: [String: UInt32] = [:]

    /// No drivers.
    package init() {}

    /// Lines that are none are passed over.
    package init(_ text: some StringProtocol) {
        var isCharacter = false
        for line in text.split(separator: "\n").prefix(4096) {
            let line = line.trimmedBlanks
            if line.hasSuffix(":") {
                isCharacter = line.hasPrefix("Character")
                continue
            }
            let words = line.split(separator: " ", maxSplits: 1)
            // mknod(2) carries 12 bits of a major.
            guard isCharacter, words.count == 2, let number = UInt32(words[0]), number < 4096 else { continue }
            let name = words[1].trimmedBlanks
            if numbers[name] == nil { numbers[name] = number }
        }
    }

    /// The first of these names that there is a driver of.
    package func major(of names: String...) -> UInt32? { names.lazy.compactMap { numbers[$0] }.first }
}
