import ArgumentParser
import Glibc
import Kernel

/// The flags that give a program environment variables.
struct EnvironmentOptions: ParsableArguments {
    @Option(name: .shortAndLong, help: ArgumentHelp("KEY=value, or KEY to pass on yours.", valueName: "env"))
    var env: [String] = []

    @Option(
        help: "A file with a KEY=value on each line; KEY alone passes on yours, # begins a comment.",
        completion: .file())
    var envFile: [String] = []

    /// Files first, so that a flag wins over them.
    func entries() throws -> [String] {
        try envFile.flatMap(Self.lines)
            + env.map { entry in
                guard !entry.isEmpty, !entry.hasPrefix("=") else {
                    throw ValidationError("--env '\(entry)' has no name before the '='")
                }
                return entry
            }.flatMap(Self.passedOn)
    }

    private static func lines(_ path: String) throws -> [String] {
        let bytes: [UInt8]
        do {
            bytes = try File.read(path)
        } catch {
            throw ValidationError("--env-file \(path) cannot be read: \(error)")
        }
        guard let text = String(validating: bytes, as: UTF8.self), !text.utf8.contains(0) else {
            throw ValidationError("--env-file \(path) is not a text in UTF-8")
        }
        var entries: [String] = []
        // By scalars: a return and a line feed are one character.
        let lines = text.unicodeScalars.split(separator: "\n", omittingEmptySubsequences: false)
        for (index, line) in lines.enumerated() {
            // A file from another system may begin with a byte order mark and end its lines with a return.
            var scalars = line.drop { $0 == " " || $0 == "\t" || $0 == "\u{FEFF}" }
            if scalars.last == "\r" { scalars.removeLast() }
            let entry = String(scalars)
            if entry.isEmpty || entry.hasPrefix("#") { continue }
            let name = entry.prefix { $0 != "=" }
            guard !name.isEmpty, !name.contains(where: \.isWhitespace) else {
                let fault = name.isEmpty ? "no name before the '='" : "a space in the name '\(name)'"
                throw ValidationError("--env-file \(path) has \(fault) in line \(index + 1)")
            }
            entries += passedOn(entry)
        }
        return entries
    }

    /// `KEY` alone takes the caller's value, and is left out when there is none.
    private static func passedOn(_ entry: String) -> [String] {
        if entry.contains("=") { return [entry] }
        return getenv(entry).map { ["\(entry)=\(String(cString: $0))"] } ?? []
    }
}
