import Glibc
import Kernel
import OCISpec

/// `linux.netDevices`: links of the host that move into a container.
enum NetDevices {
    /// Moves them into the network namespace of a child of the runtime, which waits meanwhile.
    ///
    /// When it fails half-way, those that have moved go where their namespace goes: the kernel gives physical links
    /// back to the host and removes the others.
    static func move(_ links: [LinkTransfer], to process: pid_t) throws {
        if links.isEmpty { return }
        try withContext("config.json: linux.netDevices") {
            let namespace = try File.open("/proc/\(process)/ns/net", O_RDONLY)
            try LinkTransfer.move(links, to: namespace.raw)
        }
    }
}

extension ContainerPlan {
    /// Whether the runtime has something to do between the container's mounts and its own hooks.
    var needsRuntime: Bool { !hooks.prestart.isEmpty || !hooks.createRuntime.isEmpty || !netDevices.isEmpty }
}
