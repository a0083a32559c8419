import CDISpec
import Glibc
import Kernel
import Testing

@testable import CDI

/// Two directories for specifications, the second of higher priority. Removes itself.
final class CDIPlace: Sendable {
    let path: String

    init() throws {
        var template = Array("/tmp/martlet-cdi-XXXXXX".utf8CString)
        path = String(cString: try #require(mkdtemp(&template)))
        for directory in directories { try File.makeDirectories(directory) }
    }

    deinit { _ = try? Tree.remove(path) }

    var directories: [String] { ["\(path)/etc", "\(path)/run"] }

    func write(_ file: String, _ text: String) throws {
        try File.replace("\(path)/\(file)", with: Array(text.utf8), mode: 0o644)
    }

    /// Devices, each of which sets `FROM`.
    func devices(_ file: String, _ names: String..., from: String = "", kind: String = "vendor.com/class") throws {
        let devices = names.map {
            #"{"name":"\#($0)","containerEdits":{"env":["FROM=\#(from.isEmpty ? file : from)"]}}"#
        }
        try write(
            file,
            #"{"cdiVersion":"0.5.0","kind":"\#(kind)","devices":[\#(devices.joined(separator: ","))],"#
                + #""containerEdits":{"env":["ALL=\#(file)"]}}"#)
    }

    func remove(_ file: String) throws { try File.removeFile("\(path)/\(file)") }

    /// A name without its kind is one of `vendor.com/class`.
    static func name(_ text: String) throws -> CDIName {
        try #require(CDIName(text.contains("/") ? text : "vendor.com/class=\(text)"))
    }
}
