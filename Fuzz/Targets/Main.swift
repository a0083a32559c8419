import CFuzzer
import Glibc
import Kernel

/// `martlet-fuzz [libFuzzer's options and folders]`, with the name of a target in FUZZ_TARGET.
///
/// Without that, `martlet-fuzz list` prints the names and `martlet-fuzz seeds DIR` writes what each begins with.
@main struct Main {
    static func main() {
        let arguments = CommandLine.arguments
        if let name = getenv("FUZZ_TARGET").map({ String(cString: $0) }) {
            guard let target = FuzzTarget.all.first(where: { $0.name == name }) else { fail("no target \(name)") }
            exit(target.fuzz())
        }
        switch arguments.dropFirst().first {
        case "list": for target in FuzzTarget.all { print(target.name, target.longest) }
        case "seeds" where arguments.count == 3: for target in FuzzTarget.all { target.writeSeeds(below: arguments[2]) }
        default: fail("name a target in FUZZ_TARGET, or call with list or seeds DIR")
        }
    }

    private static func fail(_ text: String) -> Never {
        try? Descriptor.writeAll(2, bytes("martlet-fuzz: \(text)\n"))
        exit(2)
    }
}

/// A parser, or several of the same input, with what has to hold of everything that they accept.
struct FuzzTarget: Sendable {
    let name: String
    /// Bytes of the longest input.
    let longest: Int
    /// What the first inputs are made from.
    let seeds: @Sendable () -> [[UInt8]]
    /// Ends the process when something does not hold.
    let test: @Sendable ([UInt8]) -> Void

    static let all: [FuzzTarget] = [
        .json, .config, .process, .resources, .record, .seccomp, .proc, .counters, .dbus, .netlink, .shim, .stage,
        .words, .cni, .attachment, .routing, .plugins, .cdi,
    ]

    /// The one that this process is for; libFuzzer's callback has no place for it.
    fileprivate static let chosen: FuzzTarget? = {
        let name = getenv("FUZZ_TARGET").map { String(cString: $0) }
        return all.first { $0.name == name }
    }()

    func fuzz() -> Int32 {
        var count = CommandLine.argc
        var arguments: UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>? = CommandLine.unsafeArgv
        return LLVMFuzzerRunDriver(&count, &arguments) { data, size in
            FuzzTarget.chosen?.test(Array(UnsafeBufferPointer(start: data, count: size)))
            return 0
        }
    }

    func writeSeeds(below directory: String) {
        mkdir("\(directory)/\(name)", 0o755)
        for (index, seed) in seeds().enumerated() {
            guard let file = fopen("\(directory)/\(name)/seed\(index)", "w") else { continue }
            fwrite(seed, 1, seed.count, file)
            fclose(file)
        }
    }
}

/// Ends the process with a sentence unless `condition` holds.
func expect(_ condition: Bool, _ sentence: @autoclosure () -> String) {
    if condition { return }
    try? Descriptor.writeAll(2, bytes("does not hold: \(sentence())\n"))
    abort()
}

/// The bytes of a text.
func bytes(_ text: String) -> [UInt8] { Array(text.utf8) }

/// The components of a path as the kernel reads it: bytes, whatever characters they make.
func components(_ path: String) -> [[UInt8]] { path.utf8.split(separator: UInt8(ascii: "/")).map { Array($0) } }

/// A path that goes nowhere but down.
func expectPlain(_ path: String, _ what: String) {
    let parts = components(path)
    expect(!parts.contains(bytes("..")) && !parts.contains(bytes(".")), "\(what) has no dots: \(path)")
}

/// What an error says is one sentence on one line.
func expectSentence(_ error: any Error) {
    let text = "\(error)"
    expect(!text.utf8.contains { $0 < 32 || $0 == 127 } && text.utf8.count < 4096, "an error is one line: \(text)")
}
