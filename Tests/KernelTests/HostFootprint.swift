import Cgroups
import Glibc
import Kernel

/// What containers can leave on a host, counted: exactly what this process can see, and what the kernel keeps out of
/// sight by its own figures, which lag behind and round up.
struct HostFootprint {
    /// Mounts of this mount namespace.
    let mounts: Int
    /// Open descriptors of this process.
    let descriptors: Int
    /// Cgroups that were removed, and that the kernel keeps for memory that still belongs to them.
    let dyingCgroups: Int
    /// Objects of the kernel's caches, for kinds that every container has one of.
    let objects: [String: Int]
    /// Memory of the kernel that it cannot give back, in KiB: slabs and memory per processor.
    let kernelMemory: Int

    /// One of each comes with a container, of `net_namespace` also with the mount that shows it.
    static let kinds = ["net_namespace", "pid_namespace", "mnt_cache", "uts_namespace", "user_namespace"]

    static func now() throws -> HostFootprint { try HostFootprint() }

    private init() throws {
        mounts = try MountInfo.read().count
        // The listing has a descriptor of its own.
        descriptors = try File.list("/proc/self/fd").count
        dyingCgroups = try Self.dying()
        var objects: [String: Int] = [:]
        for line in try File.text("/proc/slabinfo").split(separator: "\n") {
            let words = line.split(separator: " ")
            guard words.count > 1, Self.kinds.contains(String(words[0])) else { continue }
            objects[String(words[0])] = Int(words[1])
        }
        self.objects = objects
        var kernelMemory = 0
        for line in try File.text("/proc/meminfo").split(separator: "\n") {
            let words = line.split(separator: " ")
            guard words.count > 1, words[0] == "SUnreclaim:" || words[0] == "Percpu:" else { continue }
            kernelMemory += Int(words[1]) ?? 0
        }
        self.kernelMemory = kernelMemory
    }

    /// Of cgroup2 by its own count; of v1's memory groups, those that have no directory any more.
    private static func dying() throws -> Int {
        var count = 0
        for line in try File.text("\(HostCgroups.directory("unified", "cgroup.stat"))").split(separator: "\n")
        where line.hasPrefix("nr_dying_descendants ") {
            count += Int(line.split(separator: " ")[1]) ?? 0
        }
        let layout = try CgroupLayout.detect()
        guard let memory = layout.home(of: .memory), memory.version == .v1 else { return count }
        for line in try File.text("/proc/cgroups").split(separator: "\n") where line.hasPrefix("memory\t") {
            count += (Int(line.split(separator: "\t")[2]) ?? 0) - directories(memory.mountPoint)
        }
        return count
    }

    /// Directories of a hierarchy, its root among them.
    private static func directories(_ path: String) -> Int {
        guard let names = try? File.list(path) else { return 0 }
        return names.filter { !$0.contains(".") && $0 != "tasks" }.map { directories("\(path)/\($0)") }.reduce(1, +)
    }
}
