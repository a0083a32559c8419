extension DockerAPI {
    var contentRoutes: [DockerRoute] { [] }
}
