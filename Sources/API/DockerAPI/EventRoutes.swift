extension DockerAPI {
    var eventRoutes: [DockerRoute] { [] }
}
