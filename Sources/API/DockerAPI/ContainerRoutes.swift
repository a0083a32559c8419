extension DockerAPI {
    var containerRoutes: [DockerRoute] { [] }
}
