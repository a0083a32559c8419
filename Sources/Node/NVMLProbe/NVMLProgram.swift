import Glibc
import Kernel
import NVMLReport

/// The program martlet-nvml: the one process that loads NVML, so that a driver that hangs or crashes does it to nobody
/// else.
package enum NVMLProgram {
    /// Runs the command line and says how it ended: 0 with an inventory, 1 with a line of failure, 2 for a command line
    /// that is none.
    package static func run(_ arguments: [String]) -> Int32 {
        do {
            switch try Command(arguments.dropFirst()) {
            case .version:
                try write(Array("martlet-nvml version \(Version.number)\n".utf8))
                return 0
            case .inventory(let folders):
                let library = try NVMLLibrary(folders: folders)
                try write(NVMLLine.inventory(library.inventory().0).encoded())
                return 0
            case .watch(let folders, let interval):
                let library = try NVMLLibrary(folders: folders)
                let (inventory, gpus) = try library.inventory()
                try write(NVMLLine.inventory(inventory).encoded())
                let watch = GPUWatch(library, gpus, intervalMilliseconds: interval)
                throw try watch.run { try write($0.encoded()) }
            }
        } catch let failure as NVMLFailure {
            do { try write(NVMLLine.failure(failure).encoded()) } catch { return complain(error) }
            return 1
        } catch let error as CommandError {
            complain(error)
            return 2
        } catch {
            return complain(error)
        }
    }

    private static func write(_ bytes: [UInt8]) throws(KernelError) {
        try Descriptor.writeAll(1, bytes, subject: "standard output")
    }

    @discardableResult
    private static func complain(_ error: any Error) -> Int32 {
        try? Descriptor.writeAll(2, Array("martlet-nvml: \(error)\n".utf8))
        return 1
    }

    private struct CommandError: Error, CustomStringConvertible {
        let description: String
    }

    private enum Command {
        case version
        case inventory(folders: [String])
        case watch(folders: [String], intervalMilliseconds: Int)

        static let usage = """
            usage: martlet-nvml inventory [--library FOLDER]...
                   martlet-nvml watch [--interval MILLISECONDS] [--library FOLDER]...
            It prints what NVIDIA's management library says, a JSON object a line; FOLDER is where to look for
            libnvidia-ml.so.1, by default where the linker does.
            """

        init(_ arguments: ArraySlice<String>) throws {
            var folders: [String] = []
            var interval: Int?
            var rest = arguments.dropFirst()
            while let option = rest.popFirst() {
                let value = rest.popFirst() ?? ""
                switch option {
                case "--library" where value.isAbsolutePath: folders.append(value)
                case "--interval":
                    guard let number = Int(value), (100...3_600_000).contains(number) else {
                        throw CommandError(description: "--interval takes 100 to 3600000 milliseconds\n\(Self.usage)")
                    }
                    interval = number
                default: throw CommandError(description: "cannot do '\(option) \(value)'\n\(Self.usage)")
                }
            }
            switch (arguments.first, interval) {
            case ("--version", nil) where folders.isEmpty: self = .version
            case ("inventory", nil): self = .inventory(folders: folders)
            case ("watch", _): self = .watch(folders: folders, intervalMilliseconds: interval ?? 10_000)
            default: throw CommandError(description: Self.usage)
            }
        }
    }
}
