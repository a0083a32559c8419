extension DockerAPI {
    var createRoutes: [DockerRoute] { [] }
}
