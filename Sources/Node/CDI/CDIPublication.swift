import CDISpec
import Glibc
import Kernel
import Reactor

extension CDIRegistry {
    /// Has the directory of the highest priority say that these are the devices of a kind, for all that read CDI
    /// specifications on this machine. Where somebody else's specification has devices of the kind, in any of the
    /// directories, there is none of ours: what such a name means is up to whoever wrote that.
    ///
    /// - Parameters:
    ///   - writer: who the caller is, a word of letters; its file has it in its name.
    ///   - devices: none: there is to be no file.
    /// - Returns: the file of somebody else's, because of which there is none of ours.
    /// - Throws: `CDIError` when a rule is broken or the file cannot be written.
    package func publish(
        _ kind: CDIKind, writer: String, devices: [CDIDevice], edits: CDIEdits
    ) throws(CDIError) -> String? {
        guard let directory = directories.last else { return nil }
        // By its name: two of the directories may be one.
        let own = CDIFile.name(of: kind, writer: writer)
        let other = refresh().sources.first { source in
            !source.path.hasSuffix("/\(own)") && source.names.contains { $0.kind == kind }
        }
        if let stamp = FileStamp(directory, now: FileStamp.now), let mistrust = Self.mistrust(stamp) {
            throw CDIError("no CDI specification is written to \(directory): \(mistrust)")
        }
        try CDIFile.publish(
            kind, writer: writer, devices: other == nil ? devices : [], edits: edits, in: directory)
        return other?.path
    }
}
