import DeviceDiscovery
import Devices
import Testing

@Suite("An inventory of AMD's and Intel's GPUs")
struct OtherVendorTests {
    static func address(_ text: String) throws -> PCIAddress { try #require(PCIAddress(text)) }

    /// Two of AMD's GPUs, linked by their fabric.
    static func amd() throws -> HostDevices {
        var host = HostDevices()
        host.majors = DeviceMajors("Character devices:\n226 drm\n236 kfd\n")
        for (index, bus) in ["03", "83"].enumerated() {
            let address = try address("0000:\(bus):00.0")
            var pci = PCIDevice(address: address, vendor: 0x1002, device: 0x740f, deviceClass: 0x038000)
            pci.driver = "amdgpu"
            pci.numaNode = index
            pci.productName = "AMD Instinct MI210"
            host.pci.append(pci)
            var node = KFDNode(number: index + 2, gpuID: 100, address: address)
            node.uniqueID = 0x3adc_0000_0000_0000 + UInt64(index)
            node.renderMinor = UInt32(128 + index)
            node.architecture = "gfx90a"
            node.memoryBytes = 64 << 30
            node.links = [
                KFDLink(to: 0, kind: .pci, weight: 20), KFDLink(to: 3 - index, kind: .xgmi, weight: 15),
                KFDLink(to: 3 - index, kind: .pci, weight: 40),
            ]
            host.kfd.append(node)
            host.drm += [
                DRMNode(name: "card\(index + 1)", major: 226, minor: UInt32(index + 1), parent: .pci(address)),
                DRMNode(name: "renderD\(128 + index)", major: 226, minor: UInt32(128 + index), parent: .pci(address)),
            ]
        }
        return host
    }

    static func inventory(_ host: HostDevices) -> DeviceInventory { DeviceInventory(host, nvml: .absent("none")) }

    @Test("one of AMD's has its unique id as its name, its render node, its card, and the shared /dev/kfd")
    func whole() throws {
        let devices = Self.inventory(try Self.amd()).devices
        #expect(devices.map(\.id) == ["amd-3adc000000000000", "amd-3adc000000000001"])
        let first = devices[0]
        #expect(
            first.nodes == [
                DeviceFile("/dev/dri/renderD128", 226, 128, .device), DeviceFile("/dev/dri/card1", 226, 1, .device),
                DeviceFile("/dev/kfd", 236, 0, .control),
            ])
        #expect((first.model, first.computeCapability, first.memoryBytes) == ("AMD Instinct MI210", "gfx90a", 64 << 30))
        #expect((first.driver, first.numaNode, first.minor) == ("amdgpu", 0, 128))
        #expect(first.links == [DeviceLink(to: "amd-3adc000000000001", .xgmi(weight: 15))])
        #expect(first.health.state == .healthy)
        #expect(first.sources == [.pci, .kfd, .drm])
    }

    @Test("partitions have nodes of their own, in whichever way the kernel numbers them", arguments: [true, false])
    func partitions(numberIsInFunction: Bool) throws {
        var host = try Self.amd()
        let address = host.kfd[0].address
        host.computePartitions[address] = "CPX"
        for number in 1...2 {
            var node = host.kfd[0]
            if numberIsInFunction {
                node.address = try Self.address("0000:03:00.\(number)")
            } else {
                node.partition = number
            }
            node.renderMinor = UInt32(140 + number)
            host.kfd.append(node)
            host.drm += [
                DRMNode(
                    name: "renderD\(140 + number)", major: 226, minor: UInt32(140 + number),
                    parent: .platform("amdgpu_xcp_\(number)")),
                DRMNode(
                    name: "card\(10 + number)", major: 226, minor: UInt32(10 + number),
                    parent: .platform("amdgpu_xcp_\(number)")),
            ]
        }
        let devices = Self.inventory(host).devices.filter { $0.pciAddress == address }
        let name = "amd-3adc000000000000"
        #expect(devices.map(\.id) == [name, "\(name).0", "\(name).1", "\(name).2"])
        #expect(devices[0].isDivided)
        #expect(devices[0].nodes.isEmpty)
        #expect(devices[3].partition == DevicePartition(parent: name, profile: "CPX", number: 2))
        #expect(devices[3].nodes.map(\.path) == ["/dev/dri/renderD142", "/dev/dri/card12", "/dev/kfd"])
        #expect(devices[1].nodes.map(\.path) == ["/dev/dri/renderD128", "/dev/dri/card1", "/dev/kfd"])
        #expect(devices.dropFirst().allSatisfy { $0.isGrantable })
    }

    @Test("without a unique id the address is the name")
    func noUniqueID() throws {
        var host = try Self.amd()
        host.kfd[0].uniqueID = nil
        #expect(Self.inventory(host).devices.map(\.id) == ["amd-0000:03:00.0", "amd-3adc000000000001"])
    }

    @Test("one that the compute driver does not list can draw only, and one without nodes does nothing")
    func noCompute() throws {
        var host = try Self.amd()
        host.kfd.removeFirst()
        let graphics = try #require(Self.inventory(host).device("amd-0000:03:00.0"))
        #expect(graphics.health.state == .unknown)
        #expect(graphics.nodes.map(\.path) == ["/dev/dri/renderD128", "/dev/dri/card1"])
        host.drm = []
        #expect(Self.inventory(host).device("amd-0000:03:00.0")?.health.state == .unusable)
        host = try Self.amd()
        host.majors = DeviceMajors()
        #expect(Self.inventory(host).devices.allSatisfy { !$0.isGrantable })
    }

    @Test("Intel's are named by their address, render node first")
    func intel() throws {
        var host = HostDevices()
        let address = try Self.address("0000:00:02.0")
        var pci = PCIDevice(address: address, vendor: 0x8086, device: 0x56c0, deviceClass: 0x038000)
        pci.driver = "xe"
        host.pci = [pci]
        var card = DRMNode(name: "card0", major: 226, minor: 0, parent: .pci(address))
        card.memoryBytes = 16 << 30
        host.drm = [card, DRMNode(name: "renderD128", major: 226, minor: 128, parent: .pci(address))]
        let device = try #require(Self.inventory(host).devices.first)
        #expect(device.id == "intel-0000:00:02.0")
        #expect(
            device.nodes == [
                DeviceFile("/dev/dri/renderD128", 226, 128, .device), DeviceFile("/dev/dri/card0", 226, 0, .device),
            ])
        #expect((device.memoryBytes, device.driver, device.minor) == (16 << 30, "xe", 128))
        #expect(device.isGrantable)
        host.drm = []
        #expect(Self.inventory(host).devices.first?.isGrantable == false)
    }

    @Test("a vendor that is none of these is passed over")
    func otherVendor() throws {
        var host = HostDevices()
        host.pci = [
            PCIDevice(address: try Self.address("0000:00:01.0"), vendor: 0x1af4, device: 0x1050, deviceClass: 0x030000)
        ]
        #expect(Self.inventory(host).devices.isEmpty)
    }
}
