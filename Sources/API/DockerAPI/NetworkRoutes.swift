extension DockerAPI {
    var networkRoutes: [DockerRoute] { [] }
}
