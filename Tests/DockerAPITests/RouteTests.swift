import HTTPTypes
import Hummingbird
import JSON
import Kernel
import Logging
import Master
import Model
import Synchronization
import Testing

@testable import DockerAPI

@Suite struct Routes {
    private func route(_ path: String) -> DockerRoute {
        DockerRoute(.get, path, access: .read) { _ in Response(status: .ok) }
    }

    @Test func namesOfImagesHaveSlashes() {
        let route = route("/images/{name...}/json")
        #expect(route.match(["images", "busybox", "json"]) == ["name": "busybox"])
        #expect(route.match(["images", "lan:5000", "team", "web:1", "json"]) == ["name": "lan:5000/team/web:1"])
        #expect(route.match(["images", "json"]) == nil)
        #expect(route.match(["images", "busybox", "history"]) == nil)
    }

    @Test func aRouteIsThereFromItsVersionOn() {
        let table = DockerRouteTable([
            DockerRoute(.get, "/images/{name...}/attestations", access: .read, since: .v1_55) { _ in
                Response(status: .ok)
            }
        ])
        func isFound(_ minor: Int) -> Bool {
            if case .found = table.find(.get, ["images", "a", "attestations"], in: APIVersion(minor: minor)) {
                true
            } else {
                false
            }
        }
        #expect(!isFound(54))
        #expect(isFound(55))
    }

    @Test(arguments: [("1.41", 41), ("1.24", 24)]) func versionsAreRead(text: String, minor: Int) {
        #expect(APIVersion(text)?.minor == minor)
    }

    @Test(arguments: ["", "1", "2.0", "1.", "1.x", "1.41.2", "1.-1"]) func otherTextIsNoVersion(text: String) {
        #expect(APIVersion(text) == nil)
    }

    @Test func filtersComeInTwoForms() throws {
        let new = try DockerFilters(#"{"label":["a=b","c"]}"#, allowed: ["label"])
        let old = try DockerFilters(#"{"label":{"a=b":true,"c":true,"d":false}}"#, allowed: ["label"])
        #expect(new["label"] == ["a=b", "c"])
        #expect(Set(old["label"]) == ["a=b", "c"])
        #expect(new.allow(labels: ["a": "b", "c": "x"]))
        #expect(!new.allow(labels: ["a": "b"]))
        #expect(throws: DockerError.self) { try DockerFilters(#"{"labels":["a"]}"#, allowed: ["label"]) }
        #expect(throws: DockerError.self) { try DockerFilters("nonsense", allowed: ["label"]) }
    }
}

@Suite struct Times {
    /// Numbers at the ends of what an integer holds are refused, and end nothing.
    @Test(arguments: ["-9223372036854775808", "9223372036854775807", "9000000000", "-9000000000"])
    func numbersThatAreNoTimesAreRefused(text: String) throws {
        let query = try DockerQuery("since=\(text)")
        #expect(throws: DockerError.self) { try query.time("since") }
        let filters = try DockerFilters(#"{"until":["\#(text)"]}"#, allowed: ["until"])
        #expect(throws: DockerError.self) { try filters.moment("until") }
    }
    @Test func theyComeInThreeForms() throws {
        #expect(DockerTime.moment("2026-01-31T08:15:30.5Z")?.description == "2026-01-31T08:15:30.5Z")
        #expect(DockerTime.moment("1700000000.25")?.nanoseconds == 1_700_000_000_250_000_000)
        #expect(DockerTime.moment("0")?.nanoseconds == 0)
        let ago = try #require(DockerTime.moment("1h30m"))
        #expect(abs(Timestamp.now() - ago - 5_400_000_000_000) < 600_000_000_000)
        for text in ["", "soon", "1d", "10", "h", "1h30", "-1h"] { #expect(DockerTime.span(text) == nil) }
        #expect(DockerTime.span("1m500ms") == 60_500_000_000)
    }

    @Test func aFilterIsGivenOnce() throws {
        let filters = try DockerFilters(#"{"until":["1h","2h"]}"#, allowed: ["until"])
        #expect(throws: DockerError.self) { try filters.moment("until") }
        #expect(try filters.moments("until").count == 2)
    }
}

/// The table is that of the system tests, which ask every route as every role.
enum RouteTable {}

@Suite struct RightsOfRoutes {
    /// The routes of a master's face.
    private func routes() async throws -> [DockerRoute] {
        let place = "/tmp/martlet-routes-\(UInt64.random(in: 0...UInt64.max))"
        defer { _ = try? Tree.remove(place) }
        var configuration = MasterConfiguration()
        configuration.dataDirectory = "\(place)/data"
        configuration.runDirectory = "\(place)/run"
        configuration.group = nil
        let found = Mutex<[DockerRoute]>([])
        let look: MasterFace = { _, master in found.withLock { $0 = DockerAPI(master).routes } }
        _ = try await MasterDaemon(configuration, faces: [look], logger: Logger(label: "test"))
        return found.withLock { $0 }
    }

    @Test func everyRouteIsInTheTableWithWhatItAsksFor() async throws {
        let routes = try await routes()
        #expect(!routes.isEmpty)
        let table = DockerRouteTable(routes)
        func name(_ route: DockerRoute) -> String { "\(route.method) \(route.pattern)" }
        var named: Set<String> = []
        for (key, access) in RouteTable.docker {
            let words = key.split(separator: " ")
            let path = words[1].prefix { $0 != "?" }.split(separator: "/").map(String.init)
            let method = try #require(HTTPRequest.Method(String(words[0])))
            guard case .found(let route, _) = table.find(method, path, in: .newest) else {
                Issue.record("\(key) is no route")
                continue
            }
            #expect(route.access.rawValue == access, "\(key)")
            named.insert(name(route))
        }
        #expect(Set(routes.map(name)).subtracting(named).isEmpty, "not in the table")
    }
}
