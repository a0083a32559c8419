/// Where discovery looks: the kernel's file systems and the folders of drivers' libraries. Another machine's, or a tree of
/// files made up for a test, is looked at through the same code.
package struct DeviceRoots: Sendable, Equatable {
    /// procfs.
    package var proc = "/proc"
    /// sysfs.
    package var sys = "/sys"
    /// Device nodes.
    package var dev = "/dev"
    /// Absolute folders that NVIDIA's library is looked for in, in this order; empty: where the linker looks.
    package var libraries: [String] = []
    /// Absolute folders that the driver's programs are in, the first that has one counts.
    package var programs = ["/usr/bin", "/usr/local/nvidia/bin"]

    /// This machine's.
    package init() {}

    /// All below one folder: `FOLDER/proc`, `FOLDER/sys`, `FOLDER/dev`, `FOLDER/lib`, `FOLDER/bin`.
    package init(below folder: String) {
        proc = "\(folder)/proc"
        sys = "\(folder)/sys"
        dev = "\(folder)/dev"
        libraries = ["\(folder)/lib"]
        programs = ["\(folder)/bin"]
    }
}
