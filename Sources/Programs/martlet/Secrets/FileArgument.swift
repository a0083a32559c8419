import ArgumentParser
import Model

/// `NAME[:TARGET][,mode=0440,uid=1000,gid=1000]`: a secret or config as a container is given it.
struct FileArgument {
    let mount: Mount

    /// - Parameters:
    ///   - source: what the name means.
    ///   - folder: where a target that is no absolute path lies; ends with `/`.
    init(parsing argument: String, in folder: String, _ source: (String) -> Mount.Source) throws {
        var parts = argument.split(separator: ",", omittingEmptySubsequences: false).map(String.init)
        let words = parts.removeFirst().split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false).map(
            String.init)
        guard let name = words.first, !name.isEmpty, words.last?.isEmpty == false else {
            throw ValidationError("write NAME or NAME:TARGET, with ,mode=0440 ,uid=N and ,gid=N as needed")
        }
        let target = words.count == 2 ? words[1] : name
        var mount = Mount(source(name), target: target.hasPrefix("/") ? target : folder + target, readOnly: true)
        for part in parts {
            let pair = part.split(separator: "=", maxSplits: 1).map(String.init)
            switch (pair.first, pair.count) {
            case ("mode", 2): mount.mode = pair[1]
            case ("uid", 2): mount.uid = try Self.number(pair[1], "uid")
            case ("gid", 2): mount.gid = try Self.number(pair[1], "gid")
            default: throw ValidationError("the option '\(part)' is not supported: use mode=0440, uid=N or gid=N")
            }
        }
        self.mount = mount
    }

    private static func number(_ text: String, _ option: String) throws -> Int {
        guard let number = Int(text), number >= 0 else {
            throw ValidationError("\(option) is a number, not '\(text)'")
        }
        return number
    }
}

/// The flags that give a container secrets and configs.
struct FileMountOptions: ParsableArguments {
    @Option(
        help: "NAME[:TARGET][,mode=0400,uid=0,gid=0]: a secret as a file, /run/secrets/NAME unless a target is given.",
        completion: .secrets,
        transform: { try FileArgument(parsing: $0, in: "/run/secrets/") { .secret(name: $0) } })
    var secret: [FileArgument] = []

    @Option(
        help: "NAME[:TARGET][,mode=0444,uid=0,gid=0]: a config as a file, /NAME unless a target is given.",
        completion: .configs,
        transform: { try FileArgument(parsing: $0, in: "/") { .config(name: $0) } })
    var config: [FileArgument] = []

    var mounts: [Mount] { (secret + config).map(\.mount) }
}
