import CDISpec
import Glibc
import JSON
import Kernel
import YAML

/// Files with CDI specifications: `*.json` are JSON, `*.yaml` YAML. Others are none.
package enum CDIFile {
    static let endings = [".json", ".yaml"]

    /// Whether a name is that of a specification's file.
    static func isName(_ name: String) -> Bool {
        endings.contains { name.hasSuffix($0) && name.utf8.count > $0.utf8.count }
    }

    /// Reads a file.
    ///
    /// - Throws: `CDIError` without the file's name: what cannot be read, or which member breaks which rule.
    static func read(_ path: String) throws(CDIError) -> CDISpecification {
        let bytes: [UInt8]
        do throws(KernelError) {
            bytes = try File.readRegular(path, limit: CDILimits.bytes)
        } catch {
            throw CDIError(error.description)
        }
        do throws(JSONError) {
            return try parse(bytes, isYAML: path.hasSuffix(".yaml"))
        } catch {
            throw CDIError(line(error.description))
        }
    }

    /// Reads a file's text.
    ///
    /// In YAML all scalars are text but those of the few members that are numbers and booleans, so that
    /// `cdiVersion: 0.3.0` and `name: 0` mean what the reference implementation makes of them.
    package static func parse(_ bytes: [UInt8], isYAML: Bool) throws(JSONError) -> CDISpecification {
        guard isYAML else { return try CDISpecification.parse(bytes) }
        let value = try YAML.parse(bytes, limits: YAMLLimits(json: CDILimits.json)) { path in
            if path.contains(.key("annotations")) { return true }
            for element in path.reversed() {
                if case .key(let key) = element { return !numbers.contains(key) }
            }
            return true
        }
        return try CDISpecification(JSONReader(value))
    }

    private static let numbers: Set<String> = [
        "major", "minor", "fileMode", "uid", "gid", "timeout", "additionalGids", "additionalGIDs", "enableMonitoring",
    ]

    /// The name of the file of one writer's devices of a kind, as the reference implementation forms that of what is
    /// made at run time: `vendor.com-class_writer.json`. A kind's characters are all fit for it.
    package static func name(of kind: CDIKind, writer: String) -> String {
        "\(kind.vendor)-\(kind.className)_\(writer).json"
    }

    /// Makes a directory say that these are the devices of a kind that the caller answers for: writes
    /// `vendor.com-class_writer.json`, whole or not at all, or removes it when there are no devices. What says the same
    /// already is left as it is.
    ///
    /// - Parameter writer: who the caller is, a word of letters.
    /// - Throws: `CDIError` when a rule is broken or the file cannot be written.
    package static func publish(
        _ kind: CDIKind, writer: String, annotations: [String: String] = [:], devices: [CDIDevice],
        edits: CDIEdits = CDIEdits(), in directory: String
    ) throws(CDIError) {
        let path = "\(directory)/\(name(of: kind, writer: writer))"
        var text: [UInt8] = []
        do throws(JSONError) {
            if !devices.isEmpty {
                text = try CDISpecification(kind: kind, annotations: annotations, devices: devices, edits: edits)
                    .encoded()
            }
        } catch {
            throw CDIError("the CDI specification of \(kind) cannot be written: \(line(error.description))")
        }
        guard text.count <= CDILimits.bytes else {
            throw CDIError(
                "the CDI specification of \(kind) would have \(text.count) bytes, and \(CDILimits.bytes) are allowed")
        }
        do throws(KernelError) {
            guard !text.isEmpty else {
                if File.exists(path) {
                    try File.removeFile(path)
                    try File.syncDirectory(of: path)
                }
                return
            }
            if let old = try? File.readRegular(path, limit: CDILimits.bytes), old == text { return }
            try File.makeDirectories(directory, mode: 0o755)
            try File.replace(path, with: text, mode: 0o644)
        } catch {
            throw CDIError("the CDI specification of \(kind) cannot be published: \(error)")
        }
    }

    /// One line of at most 1000 characters, without what is a command to terminals.
    static func line(_ text: String) -> String {
        var line = ""
        for scalar in text.unicodeScalars.prefix(1000) {
            line.unicodeScalars.append(
                scalar.value < 32 || (127...159).contains(scalar.value) || (0x2028...0x2029).contains(scalar.value)
                    ? " " : scalar)
        }
        return line
    }
}
