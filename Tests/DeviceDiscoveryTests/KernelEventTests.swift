import DeviceDiscovery
import Glibc
import Kernel
import Testing

@Suite("The kernel's own events of devices", .serialized)
struct KernelEventTests {
    /// Writing an action into a device's `uevent` makes the kernel tell of it.
    private static let null = "/sys/devices/virtual/mem/null/uevent"

    @Test(
        "an event of a device is heard with all that it says",
        .enabled(if: access(null, W_OK) == 0, "needs root and a sysfs that can be written to"))
    func heard() throws {
        let socket = try KernelEventSocket()
        try File.writeControl(Self.null, "change")
        var wait = pollfd(fd: socket.descriptor, events: Int16(POLLIN), revents: 0)
        var heard: KernelEvent?
        while heard == nil, poll(&wait, 1, 10_000) > 0 {
            while let event = try socket.next() {
                if event.path == "/devices/virtual/mem/null" { heard = event }
            }
        }
        let event = try #require(heard)
        #expect(event.action == "change")
        #expect(event.subsystem == "mem")
        #expect(event.properties["DEVNAME"] == "null")
        #expect(!event.mayChangeDevices)
    }

    @Test(
        "what another process sends is not taken for the kernel's",
        .enabled(if: geteuid() == 0 && File.exists("/usr/bin/python3"), "needs root and python3"))
    func forged() throws {
        let socket = try KernelEventSocket()
        let sender = """
            import socket
            s = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, 15)
            s.bind((0, 0))
            s.sendto(b"add@/devices/forged\\0SUBSYSTEM=pci\\0", (0, 1))
            """
        let result = try Program("/usr/bin/python3", ["-c", sender]).run() as ProgramResult
        #expect(result.status == .exited(0), "\(result.errorText)")
        while let event = try socket.next() { #expect(event.path != "/devices/forged") }
    }
}
