/// The unified API's root. The routes below it are listed in the OpenAPI document that the master serves.
package enum APIPaths {
    package static let root = "/api/v1"
    package static let containers = root + "/containers"
    package static let services = root + "/services"
    package static let nodes = root + "/nodes"
    package static let images = root + "/images"
    package static let volumes = root + "/volumes"
    package static let devices = root + "/devices"
    package static let networks = root + "/networks"
    package static let tokens = root + "/tokens"
    package static let secrets = root + "/secrets"
    package static let configs = root + "/configs"
    package static let events = root + "/events"
    package static let cluster = root + "/cluster"
    package static let version = root + "/version"
    package static let openAPI = root + "/openapi.json"
}
