import Testing

/// The sessions that are run against dockerd and Martlet name what differs; docs/docker-api.md says why.
@Suite("Known differences from dockerd")
struct DockerDifferenceTests {
    let tree = SourceTree()

    @Test(
        "what the sessions of the tests take for a known difference is explained in docs/docker-api.md, and nothing else is"
    )
    func same() throws {
        var used: Set<String> = []
        for file in try tree.files("Tests/SystemTests/docker", ending: ".session") {
            for line in file.lines {
                if line.hasPrefix("ignore "), let name = line.split(separator: " ").dropFirst().first {
                    used.insert(String(name))
                }
                for match in line.prefix(while: { $0 != "$" }).matches(of: /differs:([a-z-]+)/) {
                    used.insert(String(match.output.1))
                }
            }
        }
        let page = try #require(try tree.files("docs", ending: "docker-api.md").first)
        let section = page.lines.drop { $0 != "## Known differences" }.dropFirst().prefix { !$0.hasPrefix("## ") }
        let explained = section.compactMap { $0.firstMatch(of: /^\| `([a-z-]+)` \| .+ \| .+ \|$/) }
            .map { String($0.output.1) }
        #expect(!explained.isEmpty && Set(explained).count == explained.count, "\(explained)")
        #expect(used.subtracting(explained).isEmpty, "not in docs/docker-api.md")
        #expect(Set(explained).subtracting(used).isEmpty, "no session has it: does it still differ?")
    }
}
