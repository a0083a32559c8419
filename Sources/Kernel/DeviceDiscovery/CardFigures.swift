/// How an AMD or Intel GPU is used, as its driver tells it by small files of sysfs.
///
/// Intel's drivers tell no load and no memory in use there; AMD's no process's part of them.
package struct CardFigures: Sendable, Equatable {
    /// Percent of the last moment in which it worked, 0 to 100.
    package var busyPercent: UInt64?
    /// Bytes of its own memory, in use and in all.
    package var memoryUsedBytes: UInt64?
    package var memoryBytes: UInt64?
    /// What it draws.
    package var milliwatts: UInt64?
    /// What it has drawn since some moment, where its driver counts that instead; it wraps.
    package var microjoules: UInt64?
    /// In thousandths of a degree.
    package var millicelsius: Int?
    /// Errors that could not be corrected since its driver was loaded, by the part that had them: `umc` is memory.
    package var uncorrectedErrors: [String: UInt64] = [:]

    /// Nothing is known.
    package init() {}

    /// Most parts that tell of errors.
    private static let partLimit = 64

    /// Reads what there is of a GPU on PCI. It may block where its driver does, so that it is read on a thread of its own.
    ///
    /// - Returns: nil: it sleeps, and would be woken by being asked.
    package static func read(_ sys: inout DeviceTree, _ address: PCIAddress) -> CardFigures? {
        let folder = "bus/pci/devices/\(address)"
        guard sys.text("\(folder)/power/runtime_status", limit: 64) != "suspended" else { return nil }
        var figures = CardFigures()
        figures.busyPercent = sys.number("\(folder)/gpu_busy_percent").flatMap { $0 <= 100 ? $0 : nil }
        figures.memoryUsedBytes = sys.number("\(folder)/mem_info_vram_used")
        figures.memoryBytes = sys.number("\(folder)/mem_info_vram_total")
        for monitor in sys.list("\(folder)/hwmon").prefix(4) {
            let place = "\(folder)/hwmon/\(monitor)"
            let microwatts = sys.number("\(place)/power1_average") ?? sys.number("\(place)/power1_input")
            figures.milliwatts = figures.milliwatts ?? microwatts.map { $0 / 1000 }
            figures.microjoules = figures.microjoules ?? sys.number("\(place)/energy1_input")
            // xe counts from 2 on: the first is a limit of the whole card.
            figures.millicelsius =
                figures.millicelsius ?? degrees(&sys, "\(place)/temp1_input") ?? degrees(&sys, "\(place)/temp2_input")
        }
        for name in sys.list("\(folder)/ras").filter({ $0.hasSuffix("_err_count") }).prefix(partLimit) {
            guard let text = sys.text("\(folder)/ras/\(name)", limit: 1024) else { continue }
            guard let count = uncorrected(text) else {
                sys.note("\(folder)/ras/\(name) is '\(text.cleaned)', which tells no errors")
                continue
            }
            if count > 0 { figures.uncorrectedErrors[String(name.dropLast("_err_count".count)).cleaned] = count }
        }
        return figures
    }

    /// Between absolute zero and what melts.
    private static func degrees(_ sys: inout DeviceTree, _ path: String) -> Int? {
        sys.text(path, limit: 64).flatMap { Int($0) }.flatMap { (-273_000...1_000_000).contains($0) ? $0 : nil }
    }

    /// Of `ue: 2`, in a line of its own among others.
    private static func uncorrected(_ text: String) -> UInt64? {
        for line in text.split(separator: "\n") {
            let parts = line.split(separator: ":", maxSplits: 1)
            if parts.count == 2, parts[0].trimmedBlanks == "ue" { return UInt64(parts[1].trimmedBlanks) }
        }
        return nil
    }
}
