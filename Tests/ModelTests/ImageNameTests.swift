import Model
import Testing

@Suite struct ImageNames {
    @Test(arguments: [
        ("busybox", "busybox:latest"), ("docker.io/library/busybox", "busybox:latest"),
        ("library/busybox:1.36", "busybox:1.36"), ("docker.io/team/web", "team/web:latest"),
        ("localhost:5000/web", "localhost:5000/web:latest"), ("registry.example/a/b:v1", "registry.example/a/b:v1"),
    ])
    func areKeptInTheFamiliarForm(written: String, familiar: String) throws {
        #expect(try #require(ImageName(written)).description == familiar)
    }

    @Test func aDigestTakesThePlaceOfTheTag() throws {
        let digest = "sha256:" + String(repeating: "a", count: 64)
        let name = try #require(ImageName("busybox@\(digest)"))
        #expect(name.tag == nil)
        #expect(name.digest == digest)
    }

    @Test(arguments: ["", "Busybox", "a//b", "a:", "a:b:c/", "-a", "a@sha256:12", "x/../y", "host:99999/a", "a b"])
    func whatIsNoNameIsRefused(text: String) {
        #expect(ImageName(text) == nil)
    }
}

@Suite struct SignalNames {
    @Test(arguments: [
        ("SIGTERM", 15), ("term", 15), ("KILL", 9), ("9", 9), ("RTMIN+1", 35), ("SIGRTMAX", 64), ("IOT", 6),
    ])
    func areNumbers(text: String, number: Int) {
        #expect(SignalName(text)?.number == number)
    }

    @Test(arguments: ["", "SIG", "0", "65", "TERMINATE", "RTMIN-1", "RTMAX+1", "-9"])
    func otherTextIsNone(text: String) {
        #expect(SignalName(text) == nil)
    }
}
