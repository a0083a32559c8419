import JSON
import Model

/// A path of a container that is other than in its image: `GET /containers/{container}/changes`.
package struct FileChange: Sendable, Codable, Hashable {
    package enum Kind: String, Sendable, Codable, CaseIterable {
        case modified
        case added
        case deleted
    }

    /// Absolute, in the container.
    package var path: String
    package var kind: Kind

    package init(path: String, kind: Kind) {
        self.path = path
        self.kind = kind
    }
}

/// `POST /containers/{container}/commit`: an image from what a container has written.
package struct CommitContainer: Sendable, Codable {
    /// nil: it gets no name.
    package var name: String?
    package var author: String?
    package var comment: String?
    /// Whether its processes stand still meanwhile; true when it is left out.
    package var pause: Bool?
    /// What the image says differently from the container.
    package var config: ImageImportConfig?

    package init(
        name: String? = nil, author: String? = nil, comment: String? = nil, pause: Bool? = nil,
        config: ImageImportConfig? = nil
    ) {
        self.name = name
        self.author = author
        self.comment = comment
        self.pause = pause
        self.config = config
    }
}

/// `POST /node/v1/sizes`: what tasks and volumes take on the disk, which is counted when it is asked for.
package struct MeasureSizes: Sendable, Codable {
    /// At most 100,000; those that the node has not are left out of the answer.
    package var tasks: [TaskID]
    /// All volumes of the node too.
    package var volumes: Bool

    package init(tasks: [TaskID], volumes: Bool = false) {
        self.tasks = tasks
        self.volumes = volumes
    }
}

package struct MeasuredSizes: Sendable, Codable {
    /// Bytes of the files in a task's writable layer, by its id.
    package var tasks: [String: Int64]
    /// Bytes of the files in a volume, by its name.
    package var volumes: [String: Int64]

    package init(tasks: [String: Int64] = [:], volumes: [String: Int64] = [:]) {
        self.tasks = tasks
        self.volumes = volumes
    }
}

/// `GET /node/v1/tasks/{task}/health`: what one probe of a container's health said; the newest five, oldest first.
package struct ProbeResult: Sendable, Codable, Hashable {
    package var start: Timestamp
    package var end: Timestamp
    /// 0: healthy; of a command its own, -1 when it did not end in time.
    package var exitCode: Int
    /// At most 4096 bytes of what a command wrote, or why there was no answer.
    package var output: String

    package init(start: Timestamp, end: Timestamp, exitCode: Int, output: String) {
        self.start = start
        self.end = end
        self.exitCode = exitCode
        self.output = output
    }
}
