import Testing

@testable import Images

/// Names of images, platforms and digests.
@Suite struct ImageReferenceTests {
    @Test(arguments: [
        ("busybox", "docker.io/library/busybox:latest", "busybox:latest"),
        ("busybox:1.36", "docker.io/library/busybox:1.36", "busybox:1.36"),
        ("docker.io/busybox", "docker.io/library/busybox:latest", "busybox:latest"),
        ("index.docker.io/library/busybox", "docker.io/library/busybox:latest", "busybox:latest"),
        ("team/app", "docker.io/team/app:latest", "team/app:latest"),
        ("localhost/app", "localhost/app:latest", "localhost/app:latest"),
        ("localhost:5000/app:v1", "localhost:5000/app:v1", "localhost:5000/app:v1"),
        (
            "example.org/a/b/c_d__e--f.g:T_1.x-y", "example.org/a/b/c_d__e--f.g:T_1.x-y",
            "example.org/a/b/c_d__e--f.g:T_1.x-y"
        ),
        ("Registry/app", "Registry/app:latest", "Registry/app:latest"),
        ("[2001:db8::1]:5000/app", "[2001:db8::1]:5000/app:latest", "[2001:db8::1]:5000/app:latest"),
    ])
    func isAName(text: String, full: String, familiar: String) throws {
        let name = try ImageReference(text)
        #expect(name.description == full && name.familiar == familiar)
        #expect(try ImageReference(full) == name && ImageReference(familiar) == name)
    }

    @Test func aDigestStandsForTheTag() throws {
        let digest = Digest.of([])
        let name = try ImageReference("busybox@\(digest)")
        #expect(name.tag == nil && name.digest == digest)
        let both = try ImageReference("busybox:1@\(digest)")
        #expect(both.tag == "1" && both.description == "docker.io/library/busybox:1@\(digest)")
    }

    @Test(arguments: [
        "", " ", "a b", "UPPER", "team/UPPER", "a//b", "/a", "a/", "a/../b", "../a", "a___b", "a..b", "a._b", "-a",
        "a-",
        "_a", "a:", "a:-x", "a:.x", "a:x:y", "a:tag with space", "a@", "a@sha256:abc",
        "a@sha512:\(String(repeating: "a", count: 128))",
        "a@sha256:\(String(repeating: "A", count: 64))", "\u{e9}", "a\u{ff11}", "a\0b", "host:port/a", "host:99999/a",
        "-host.org/a", "host..org/a", "[::1/a", "a:\(String(repeating: "t", count: 129))",
        String(repeating: "n", count: 256), String(repeating: "0", count: 64), "http://example.org/a",
    ])
    func isNoName(_ text: String) {
        do {
            Issue.record("\(try ImageReference(text)) was accepted")
        } catch {
            let refusal = error as? ImageError
            #expect(refusal?.kind == .invalidArgument)
            #expect(refusal?.message.contains("is no image name: ") == true)
        }
    }

    @Test func digestsAreStrict() {
        #expect(
            Digest.of([]).description == "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")
        for text in [
            "", "sha256:", "sha512:ab", "SHA256:\(String(repeating: "a", count: 64))",
            String(repeating: "a", count: 64),
        ] {
            #expect(Digest(text) == nil, "\(text)")
        }
    }

    @Test func platformsAreComparedWithTheirVariantWhereBothHaveOne() throws {
        #expect(try Platform("linux/arm64/v8") == Platform(architecture: "arm64", variant: "v8"))
        #expect(try Platform("linux/arm64").accepts(Platform("linux/arm64/v8")))
        #expect(try !Platform("linux/arm/v6").accepts(Platform("linux/arm/v7")))
        #expect(try !Platform("linux/amd64").accepts(Platform("windows/amd64")))
        for text in ["", "linux", "linux/", "/amd64", "linux/amd64/v1/x", "Linux/amd64", "linux/am d"] {
            #expect(throws: ImageError.self, "\(text)") { try Platform(text) }
        }
    }

    @Test func chainIdsAreTheSpecifications() {
        let (first, second) = (Digest.of([1]), Digest.of([2]))
        #expect(ChainID.all([]) == [] && ChainID.all([first]) == [first])
        #expect(ChainID.all([first, second]) == [first, Digest.of(Array("\(first) \(second)".utf8))])
    }
}
