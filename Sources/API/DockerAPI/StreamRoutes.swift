extension DockerAPI {
    var streamRoutes: [DockerRoute] { [] }
}
