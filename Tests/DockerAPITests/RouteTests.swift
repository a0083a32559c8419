import HTTPTypes
import Hummingbird
import Model
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
        #expect(throws: DockerError.self) { try DockerAPI.moment(text) }
    }
}
