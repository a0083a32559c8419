import Glibc
import Kernel

/// A file of a driver's that programs in containers load or call.
package struct DriverFile: Sendable, Equatable {
    package enum Kind: Sendable, Equatable {
        case library, program
    }

    package let kind: Kind
    /// Absolute, with no link in it.
    package let path: String
    /// By which programs ask for it, sorted: `libcuda.so` and `libcuda.so.1`.
    package let names: [String]

    package init(_ kind: Kind, path: String, names: [String]) {
        self.kind = kind
        self.path = path
        self.names = names
    }

    /// NVIDIA's libraries for computing, video and looking at GPUs, without `lib` and what follows the point. Those for
    /// graphics have configuration of their own in an image, and are none of them.
    private static let libraries: Set = [
        "cuda", "cudadebugger", "nvcuvid", "nvidia-allocator", "nvidia-cfg", "nvidia-compiler", "nvidia-encode",
        "nvidia-fatbinaryloader", "nvidia-gpucomp", "nvidia-ml", "nvidia-nvvm", "nvidia-nvvm70", "nvidia-opencl",
        "nvidia-opticalflow", "nvidia-pkcs11", "nvidia-pkcs11-openssl3", "nvidia-ptxjitcompiler", "nvidia-tileiras",
    ]

    /// Of these a file without the driver's version in its name belongs to it too, when it lies beside the others.
    private static let unversioned: Set = ["nvidia-nvvm", "nvidia-nvvm70"]

    private static let programs = [
        "nvidia-cuda-mps-control", "nvidia-cuda-mps-server", "nvidia-debugdump", "nvidia-smi",
    ]

    /// Those of NVIDIA's driver, sorted by path. A library is one of the driver's when its file's name ends in the driver's
    /// version: one of another version would not work with it.
    ///
    /// Nothing is loaded or executed. What cannot be read is not there.
    package static func nvidia(version: String, in roots: DeviceRoots) -> [DriverFile] {
        var found: [String: Set<String>] = [:]
        for folder in roots.libraryFolders {
            var here: [String: Set<String>] = [:]
            for name in (try? File.list(folder)) ?? [] {
                guard let stem = stem(of: name), libraries.contains(stem), let path = resolved("\(folder)/\(name)"),
                    path.hasSuffix(".so.\(version)") || unversioned.contains(stem)
                else { continue }
                here[path, default: []].insert(name)
            }
            // All are of one folder: another one has those of another architecture, or of another driver.
            guard here.keys.contains(where: { $0.hasSuffix("/libcuda.so.\(version)") }) else { continue }
            found = here
            break
        }
        let libraries = found.map { path, names in
            // The full version is a name that programs ask for only where there is no other.
            var links = names.filter { !$0.hasSuffix(".\(version)") }
            // Some look for it by the name that linkers use, which not every driver's package makes.
            if links.contains("libcuda.so.1") { links.insert("libcuda.so") }
            return DriverFile(.library, path: path, names: (links.isEmpty ? names : links).sorted())
        }
        let programs = programs.compactMap { name in
            roots.programs.lazy.compactMap { resolved("\($0)/\(name)") }.first.map {
                DriverFile(.program, path: $0, names: [name])
            }
        }
        return (libraries + programs).sorted { $0.path < $1.path }
    }

    /// `cuda` of `libcuda.so.1`.
    private static func stem(of name: String) -> String? {
        guard name.hasPrefix("lib"), let end = name.utf8.firstIndex(of: UInt8(ascii: ".")),
            name[end...].hasPrefix(".so")
        else { return nil }
        return String(name[name.utf8.index(name.startIndex, offsetBy: 3)..<end])
    }

    /// Where a path leads to, when that is a file; see realpath(3).
    private static func resolved(_ path: String) -> String? {
        guard let found = realpath(path, nil) else { return nil }
        defer { free(found) }
        var information = stat()
        guard stat(found, &information) == 0, information.st_mode & S_IFMT == S_IFREG else { return nil }
        return String(validatingCString: found)
    }
}

extension DeviceRoots {
    #if arch(arm64)
        /// Where glibc's linker in a container looks for libraries without being told: Debian's and its relatives', and the
        /// others'.
        package static let linkerFolders = ["/usr/lib/aarch64-linux-gnu", "/usr/lib64"]
    #else
        /// Where glibc's linker in a container looks for libraries without being told: Debian's and its relatives', and the
        /// others'.
        package static let linkerFolders = ["/usr/lib/x86_64-linux-gnu", "/usr/lib64"]
    #endif

    /// Where the driver's libraries may be, the first that has them counts.
    package var libraryFolders: [String] {
        libraries.isEmpty ? Self.linkerFolders + ["/usr/local/nvidia/lib64", "/run/opengl-driver/lib"] : libraries
    }
}
