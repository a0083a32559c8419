import CNISpec
import Testing

@Suite struct IPAddressTests {
    @Test(arguments: [
        ("0.0.0.0", "0.0.0.0"), ("10.213.0.1", "10.213.0.1"), ("255.255.255.255", "255.255.255.255"),
        ("::", "::"), ("::1", "::1"), ("1::", "1::"), ("2001:DB8:0:0:8:800:200C:417A", "2001:db8::8:800:200c:417a"),
        ("fe80:0:0:0:0:0:0:1", "fe80::1"), ("1:0:0:2:0:0:0:3", "1:0:0:2::3"), ("1:0:2:3:4:5:6:7", "1:0:2:3:4:5:6:7"),
        ("1:0:0:2:3:0:0:4", "1::2:3:0:0:4"), ("::ffff:192.0.2.1", "::ffff:192.0.2.1"),
        ("::192.0.2.1", "::c000:201"), ("1:2:3:4:5:6:192.0.2.1", "1:2:3:4:5:6:c000:201"),
        ("::2:3:4:5:6:7:8", "0:2:3:4:5:6:7:8"),
    ])
    func `texts are read and written in canonical form`(text: String, canonical: String) throws {
        let address = try #require(IPAddress(text))
        #expect(address.description == canonical)
        #expect(IPAddress(canonical) == address)
        #expect(IPAddress(bytes: address.bytes) == address)
    }

    @Test(arguments: [
        "", " 1.2.3.4", "1.2.3.4 ", "1.2.3", "1.2.3.4.5", "1.2.3.256", "1.2.3.04", "1.2.3.-4", "1.2.3.+4", "1..2.3",
        "0x1.2.3.4",
        "1.2.3.4/8", ":", ":::", "1:", ":1", "1::2::3", "1:2:3:4:5:6:7", "1:2:3:4:5:6:7:8:9", "1:2:3:4:5:6:7::8",
        "12345::",
        "g::", "fe80::1%eth0", "::1.2.3", "1.2.3.4::", "::1.2.3.4:5", "1:2:3:4:5:6:7:1.2.3.4", "１.2.3.4", "[::1]",
    ])
    func `what is no address is refused`(text: String) { #expect(IPAddress(text) == nil) }

    @Test func `addresses know what they are for`() throws {
        #expect(try #require(IPAddress("127.1.2.3")).isLoopback)
        #expect(try #require(IPAddress("::1")).isLoopback)
        #expect(try !#require(IPAddress("128.0.0.1")).isLoopback)
        #expect(try #require(IPAddress("0.0.0.0")).isUnspecified)
        #expect(try #require(IPAddress("224.0.0.1")).isMulticast)
        #expect(try #require(IPAddress("ff02::1")).isMulticast)
        #expect(try #require(IPAddress("169.254.1.1")).isLinkLocal)
        #expect(try #require(IPAddress("fe80::1")).isLinkLocal)
    }

    @Test func `counting stops at the ends of the family`() throws {
        #expect(IPAddress("10.0.0.255")?.advanced(by: 1)?.description == "10.0.1.0")
        #expect(IPAddress("10.0.1.0")?.advanced(by: -1)?.description == "10.0.0.255")
        #expect(IPAddress("255.255.255.255")?.advanced(by: 1) == nil)
        #expect(IPAddress("0.0.0.0")?.advanced(by: -1) == nil)
        #expect(IPAddress("::ffff:ffff:ffff")?.advanced(by: 1)?.description == "::1:0:0:0")
    }

    @Test func `networks have ends and a mask`() throws {
        let network = try #require(CIDR("10.213.77.5/16"))
        #expect(network.first.description == "10.213.0.0")
        #expect(network.last.description == "10.213.255.255")
        #expect(network.mask.description == "255.255.0.0")
        #expect(network.network.description == "10.213.0.0/16")
        #expect(!network.isNetwork && network.network.isNetwork)
        #expect(CIDR("0.0.0.0/0")?.last.description == "255.255.255.255")
        #expect(CIDR("::/0")?.last.description == "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")
        #expect(CIDR("10.0.0.1/32")?.first == CIDR("10.0.0.1/32")?.last)
        let address = try #require(IPAddress("10.1.2.3"))
        #expect(CIDR(address, mask: try #require(IPAddress("255.255.255.0")))?.prefixLength == 24)
        #expect(CIDR(address, mask: try #require(IPAddress("0.0.0.0")))?.prefixLength == 0)
        #expect(CIDR(address, mask: try #require(IPAddress("255.0.255.0"))) == nil)
    }

    @Test(arguments: [
        "10.0.0.0", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0.0/08", "::/129", "/8", "10.0.0.0/8/8", "10.0.0.0/",
    ])
    func `what is no network is refused`(text: String) { #expect(CIDR(text) == nil) }

    @Test(arguments: [
        ("10.213.0.0/16", "10.213.4.0/24", true), ("10.213.4.0/24", "10.213.0.0/16", true),
        ("10.0.0.0/8", "10.213.0.0/16", true),
        ("10.213.0.0/16", "10.214.0.0/16", false), ("10.213.0.0/16", "10.212.0.0/15", true),
        ("10.213.0.0/16", "10.214.0.0/15", false),
        ("0.0.0.0/0", "1.2.3.4/32", true), ("::/0", "1.2.3.4/32", false), ("fd00::/8", "fd12::/16", true),
    ])
    func `networks overlap when one contains the other`(left: String, right: String, overlap: Bool) throws {
        let (left, right) = (try #require(CIDR(left)), try #require(CIDR(right)))
        #expect(left.overlaps(right) == overlap)
        #expect(right.overlaps(left) == overlap)
    }

    @Test func `hardware addresses`() {
        #expect(MACAddress("AA:bb:00:11:22:0f")?.description == "aa:bb:00:11:22:0f")
        #expect(MACAddress("aa-bb-cc-dd-ee-ff-00-11")?.bytes.count == 8)
        for text in [
            "", "aa:bb:cc:dd:ee", "aa:bb:cc:dd:ee:ff:00", "aa:bb:cc-dd:ee:ff", "aa:bb:cc:dd:ee:f", "zz:bb:cc:dd:ee:ff",
        ] {
            #expect(MACAddress(text) == nil, "\(text)")
        }
    }
}
