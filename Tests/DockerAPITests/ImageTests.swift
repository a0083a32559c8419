import JSON
import Testing
import Wire

@testable import DockerAPI

/// What Docker's clients say about images.
@Suite struct ImageWords {
    private func changed(_ changes: String...) throws -> ImageImportConfig {
        var config = ImageImportConfig()
        try ImageChanges.apply(changes, to: &config)
        return config
    }

    @Test func instructionsOfADockerfileChangeTheConfiguration() throws {
        let config = try changed(
            #"CMD ["/bin/tool", "-v"]"#, "entrypoint /bin/run --fast", #"ENV A=1 B="two words""#, "ENV OLD style value",
            "LABEL key=value", "EXPOSE 80 53/udp", "USER 1000:1000", "WORKDIR /srv", "WORKDIR data",
            "STOPSIGNAL SIGINT", #"VOLUME ["/a", "/b"]"#, "VOLUME /c", "ONBUILD RUN make",
            "HEALTHCHECK --interval=1m30s --retries=2 CMD curl -f localhost")
        #expect(config.command == ["/bin/tool", "-v"])
        #expect(config.entrypoint == ["/bin/sh", "-c", "/bin/run --fast"])
        #expect(config.environment == ["A=1", "B=two words", "OLD=style value"])
        #expect(config.labels == ["key": "value"])
        #expect(config.exposedPorts == ["80/tcp", "53/udp"])
        #expect(config.user == "1000:1000")
        #expect(config.workingDirectory == "/srv/data")
        #expect(config.stopSignal == "SIGINT")
        #expect(config.volumes == ["/a", "/b", "/c"])
        #expect(config.onBuild == ["RUN make"])
        #expect(config.healthCheck?.test == ["CMD-SHELL", "curl -f localhost"])
        #expect(config.healthCheck?.interval == 90_000_000_000)
        #expect(config.healthCheck?.retries == 2)
    }

    @Test(arguments: [
        "RUN make", "CMD", "ENV A", "LABEL =x", "USER a b", "ENV A=\"open", "SHELL /bin/bash", "CMD [1]",
        "HEALTHCHECK --interval=soon CMD x", "HEALTHCHECK --often=1 CMD x", "HEALTHCHECK x",
    ])
    func otherInstructionsAreRefused(change: String) {
        #expect(throws: DockerError.self) { try changed(change) }
    }

    @Test(arguments: [
        ("busybox", "busybox", true), ("busy*", "busybox", true), ("*/busybox", "lan:5000/busybox", true),
        ("*", "lan:5000/busybox", false), ("b?sybox:[0-9]*", "busybox:1.36", true), ("[^a]*", "alpine", false),
        ("*a*b*", "xxaxxbxx", true), ("*a*b", "xxaxxbxx", false), (#"\*"#, "*", true), ("[", "[", false),
    ])
    func patternsStayBetweenSlashes(pattern: String, text: String, matches: Bool) {
        #expect(PathPattern(pattern).matches(text) == matches)
    }

    @Test func aPatternOfManyStarsEndsSoon() {
        let pattern = PathPattern(String(repeating: "*a", count: 2000) + "b")
        #expect(!pattern.matches(String(repeating: "a", count: 4000)))
    }

    @Test func aLoginIsReadInItsForms() throws {
        func auth(_ text: String) throws -> RegistryAuth {
            try JSONCoding.decode(RegistryAuth.self, from: Array(text.utf8))
        }
        #expect(try auth("{}").login == nil)
        let plain = try auth(#"{"username":"u","password":"p","serveraddress":"https://index.docker.io/v1/"}"#)
        #expect(try plain.login?.username == "u")
        #expect(plain.registry == "docker.io")
        #expect(try auth(#"{"auth":"dTpw"}"#).login?.password == "p")
        #expect(try auth(#"{"identitytoken":"t","username":"u"}"#).login?.identityToken == "t")
        #expect(try auth(#"{"serveraddress":"lan:5000"}"#).registry == "lan:5000")
        #expect(throws: DockerError.self) { try auth(#"{"registrytoken":"x"}"#).login }
        #expect(throws: DockerError.self) { try auth(#"{"auth":"?"}"#).login }
    }

    @Test func stepsOfAPullAreToldInDockersWords() {
        var lines = ProgressLines(.pull)
        func tell(_ phase: String, _ done: Int64 = 0) -> [String] {
            lines.take(.init(digest: "sha256:0123456789abcdef", phase: phase, done: done, total: 100)).map {
                "\($0.id ?? ""): \($0.status ?? "") \($0.progressDetail?.current ?? -1)"
            }
        }
        #expect(tell("downloading", 10) == ["0123456789ab: Pulling fs layer -1", "0123456789ab: Downloading 10"])
        #expect(tell("downloading", 60) == ["0123456789ab: Downloading 60"])
        #expect(tell("downloaded") == ["0123456789ab: Download complete -1"])
        #expect(tell("downloaded").isEmpty)
        #expect(tell("done") == ["0123456789ab: Pull complete -1"])
    }

    @Test func whatIsThereAlreadyIsToldOnceAndConfigurationsNever() {
        func tell(_ lines: inout ProgressLines, _ digest: String, _ phase: String) -> [String] {
            lines.take(.init(digest: "sha256:\(digest)", phase: phase, done: 1, total: 1)).map { $0.status ?? "" }
        }
        var pull = ProgressLines(.pull)
        #expect(tell(&pull, "01", "present") == ["Already exists"])
        #expect(tell(&pull, "01", "done").isEmpty)
        var push = ProgressLines(.push, configuration: "sha256:02")
        #expect(tell(&push, "02", "done").isEmpty)
        #expect(tell(&push, "01", "present") == ["Preparing", "Layer already exists"])
    }

    @Test(arguments: [
        ("not-found", "lan:5000/a/b:1", 404, "manifest for lan:5000/a/b:1 not found: manifest unknown: why"),
        ("not-found", "lan:5000/a/b", 404, "repository lan:5000/a/b not found: name unknown: why"),
        (
            "registry-login", "lan:5000/a/b:1", 404,
            "pull access denied for lan:5000/a/b, repository does not exist or may require 'docker login': denied: "
                + "no basic auth credentials: why"
        ),
        ("registry-unavailable", "lan:5000/a/b:1", 500, "why"), ("bad-request", "lan:5000/a/b:1", 400, "why"),
        ("storage-full", "lan:5000/a/b:1", 507, "why"),
    ])
    func aRegistrysRefusalReachesTheClient(code: String, name: String, status: Int, message: String) {
        let refusal = RegistryRefusal(.pull, name, hasLogin: false)
            .refusal(code, "why", status: code == "storage-full" ? 507 : 503)
        #expect(refusal.status == status && refusal.message == message, "\(refusal.status) \(refusal)")
    }

    @Test func aRefusedPushSaysWhetherALoginWasGiven() {
        func refusal(_ hasLogin: Bool) -> DockerError {
            RegistryRefusal(.push, "lan:5000/a/b:1", hasLogin: hasLogin).refusal("registry-login", "why", status: nil)
        }
        #expect(refusal(false).message == "no basic auth credentials: why")
        #expect(refusal(true).message == "unauthorized: why" && refusal(true).status == 500)
    }

    @Test(arguments: [
        ("busybox", "docker.io/library/busybox"), ("team/web", "docker.io/team/web"), ("lan:5000/web", "lan:5000/web"),
        ("localhost/web", "localhost/web"),
    ])
    func namesAreShownWithTheirRegistry(name: String, full: String) {
        #expect(DockerAPI.full(name) == full)
    }
}
