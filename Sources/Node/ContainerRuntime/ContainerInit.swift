import CStage
import Glibc
import Kernel

/// `martlet-runtime init -- program …`: the first process of a container whose program is none. It runs inside, takes
/// no options and needs nothing of the container's root: it passes signals on, waits for orphans, and ends as the
/// program ends.
enum ContainerInit {
    /// The word that follows the program's name.
    static let word = "init"

    /// - Parameter arguments: what follows `init`.
    /// - Returns: the program's exit status, 128 + N when signal N ended it; 127 and 126 when it is not there or cannot
    ///   be executed; 125 for what is wrong here.
    static func run(_ arguments: ArraySlice<String>) -> Int32 {
        let command = Array(arguments.first == "--" ? arguments.dropFirst() : arguments)
        guard !command.isEmpty else {
            try? Descriptor.writeAll(2, Array("init: no program is named\n".utf8))
            return 125
        }
        return withCStrings(command) { cs_init($0) }
    }
}
