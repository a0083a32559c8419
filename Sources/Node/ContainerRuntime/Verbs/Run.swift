import Glibc
import Kernel

extension Verb {
    static let run = Verb(
        name: "run", usage: "[command options] <container-id>", summary: "create and start a container",
        flags: {
            LaunchArguments.flags + [
                Flag("detach", "d", help: "return when the program runs"),
                Flag("keep", help: "do not delete the container after it has ended"),
                Flag("no-subreaper", help: "accepted; orphans are always reaped"),
            ]
        }
    ) { call in
        try call.arguments.require("run", atLeast: 1, atMost: 1)
        try SelfProtection.ensure(call.commandLine)
        let detach = call.arguments.has("detach")
        let options = try LaunchArguments.options(call, startsAtOnce: true, foreground: !detach)
        let launcher = Launcher(store: call.store, log: call.log, options: options)
        if detach {
            let container = try launcher.launch()
            try container.notify?.wait(
                main: container.process.pid, process: container.process.pidfd.raw, log: call.log)
            return 0
        }
        let foreground = try Foreground()
        let container = try launcher.launch()
        let status = try foreground.wait(
            container.process, terminal: container.terminal, notify: container.notify)
        if !call.arguments.has("keep") {
            let lock = try call.store.lock(options.id)
            try call.store.destroy(container.record, log: call.log)
            _ = consume lock
        }
        return status.shellCode
    }
}
