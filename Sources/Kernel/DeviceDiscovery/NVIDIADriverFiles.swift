import Kernel

/// What NVIDIA's kernel driver says in procfs, without its library.
package struct NVIDIADriverFiles: Sendable, Equatable {
    /// `550.54.15`; nil: the driver is not loaded.
    package var version: String?
    package var gpus: [NVIDIAFileGPU] = []
    /// Minors of /dev/nvidia-caps/nvidia-capN, by what they grant.
    package var capabilities: [NVIDIACapability: UInt32] = [:]

    package init() {}

    /// Those of a procfs.
    package static func read(_ proc: inout DeviceTree) -> NVIDIADriverFiles {
        var files = NVIDIADriverFiles()
        files.version = proc.text("driver/nvidia/version").flatMap { version(in: $0) }
        for name in proc.list("driver/nvidia/gpus") {
            guard let address = PCIAddress(name) else {
                proc.note("driver/nvidia/gpus has '\(name.cleaned)', which is no PCI address")
                continue
            }
            var gpu = NVIDIAFileGPU(address: address)
            if let text = proc.text("driver/nvidia/gpus/\(name)/information") { gpu.read(text) }
            files.gpus.append(gpu)
        }
        if let text = proc.text("driver/nvidia-caps/mig-minors", limit: 4 << 20) {
            files.capabilities = NVIDIACapability.minors(in: text)
        }
        return files
    }

    /// The version in the line `NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue …`, which the open modules
    /// word a little differently: the first word of numbers with points between.
    package static func version(in text: some StringProtocol) -> String? {
        let line = Substring(text).split(separator: "\n").first { $0.hasPrefix("NVRM version:") }
        return line?.split { $0 == " " || $0 == "\t" }.first { isVersion($0) }.map { String($0) }
    }

    private static func isVersion(_ word: Substring) -> Bool {
        let parts = word.split(separator: ".", omittingEmptySubsequences: false)
        return (2...4).contains(parts.count) && word.utf8.count <= 32
            && parts.allSatisfy { !$0.isEmpty && $0.utf8.allSatisfy { (48...57).contains($0) } }
    }
}

/// A GPU's file `information`.
package struct NVIDIAFileGPU: Sendable, Equatable {
    package let address: PCIAddress
    package var model: String?
    /// nil also while the driver has not asked the hardware for it yet.
    package var uuid: String?
    /// The N of /dev/nvidiaN.
    package var minor: UInt32?
    /// The operator told the driver to leave it alone.
    package var isExcluded = false

    package init(address: PCIAddress) { self.address = address }

    /// Reads lines of `key: value`; what is not understood is left out.
    package mutating func read(_ text: some StringProtocol) {
        for line in text.split(separator: "\n").prefix(64) {
            guard let colon = line.utf8.firstIndex(of: UInt8(ascii: ":")) else { continue }
            let value = line[line.utf8.index(after: colon)...].trimmedBlanks
            switch line[..<colon].trimmedBlanks {
            case "Model" where !value.isEmpty: model = value.cleaned
            case "GPU UUID": uuid = DeviceUUID.isValid(value) ? value : nil
            case "Device Minor": minor = UInt32(value).flatMap { $0 <= 0xfffff ? $0 : nil }
            case "GPU Excluded": isExcluded = value == "Yes"
            default: break
            }
        }
    }
}

/// What an nvidia-cap device lets its holder do.
package enum NVIDIACapability: Sendable, Hashable {
    /// Use a GPU instance of the GPU with a minor.
    case gpuInstance(minor: UInt32, UInt32)
    /// Use a compute instance of that.
    case computeInstance(minor: UInt32, UInt32, UInt32)
    /// Divide GPUs.
    case config
    /// Look at all instances.
    case monitor

    /// Most lines that are read: a machine of 32 GPUs has some 4,000.
    private static let lineLimit = 65536

    /// Reads lines such as `gpu0/gi1/ci0/access 13` and `config 1`; what is not understood is left out.
    package static func minors(in text: some StringProtocol) -> [NVIDIACapability: UInt32] {
        var result: [NVIDIACapability: UInt32] = [:]
        for line in Substring(text).split(separator: "\n").prefix(lineLimit) {
            let words = line.split(separator: " ")
            guard words.count == 2, let minor = UInt32(words[1]), minor <= 0xfffff,
                let capability = NVIDIACapability(path: words[0])
            else { continue }
            result[capability] = minor
        }
        return result
    }

    private init?(path: Substring) {
        let parts = path.split(separator: "/", omittingEmptySubsequences: false)
        switch (parts.count, path) {
        case (1, "config"): self = .config
        case (1, "monitor"): self = .monitor
        case (3, _):
            guard let gpu = Self.number(parts[0], "gpu"), let instance = Self.number(parts[1], "gi"),
                parts[2] == "access"
            else { return nil }
            self = .gpuInstance(minor: gpu, instance)
        case (4, _):
            guard let gpu = Self.number(parts[0], "gpu"), let instance = Self.number(parts[1], "gi"),
                let compute = Self.number(parts[2], "ci"), parts[3] == "access"
            else { return nil }
            self = .computeInstance(minor: gpu, instance, compute)
        default: return nil
        }
    }

    private static func number(_ text: Substring, _ prefix: String) -> UInt32? {
        guard text.hasPrefix(prefix) else { return nil }
        let digits = text.dropFirst(prefix.count)
        return digits.utf8.allSatisfy { (48...57).contains($0) } ? UInt32(digits) : nil
    }
}

/// Names that NVIDIA gives its GPUs and instances.
package enum DeviceUUID {
    /// `GPU-` or `MIG-` and a uuid, or the older `MIG-GPU-<uuid>/gi/ci`: letters, digits, `-` and `/`, at most 95 of them.
    /// The driver writes question marks until it has asked the hardware.
    package static func isValid(_ text: some StringProtocol) -> Bool {
        (text.hasPrefix("GPU-") || text.hasPrefix("MIG-")) && (12...95).contains(text.utf8.count)
            && text.utf8.allSatisfy { byte in
                switch byte {
                case UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "a")...UInt8(ascii: "z"),
                    UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "-"), UInt8(ascii: "/"):
                    true
                default: false
                }
            }
    }
}
