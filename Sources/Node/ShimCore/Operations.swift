import Glibc
import JSON
import Kernel
import ShimProtocol
import StreamFrames

/// What the shim does for each request.
extension Shim {
    /// Serves one request; the connection gets exactly one answer or failure.
    func serve(_ request: ShimRequest, _ connection: Connection) {
        switch request {
        case .hello:
            answer(
                ShimResponse(
                    version: ShimProtocol.version, pid: getpid(), task: options.taskID,
                    features: ShimProtocol.features), connection)
        case .state:
            answer(ShimResponse(containers: containers.map(\.state), execs: execStates), connection)
        case .create(let spec): create(spec, connection)
        case .start(let id): start(id, connection)
        case .signal(let id, let number, let all): signal(id, number, all: all, connection)
        case .pause(let id): pause(id, connection)
        case .resume(let id): resume(id, connection)
        case .lease(let lease): self.lease(lease, connection)
        case .release(let id): release(id, connection)
        case .delete(let id, let force): delete(id, force: force, connection)
        case .exec(let spec): exec(spec, connection)
        case .attach(let spec): attach(spec, connection)
        case .resize(let id, let columns, let rows): resize(id, columns, rows, connection)
        case .events: subscribe(connection)
        case .shutdown: shutDown(connection)
        }
    }

    func answer(_ response: ShimResponse, _ connection: Connection) {
        connection.send(response)
        connection.finish()
    }

    func answer(_ container: Container, _ connection: Connection) {
        answer(ShimResponse(container: container.state), connection)
    }

    func failUnknown(_ id: String, _ connection: Connection) {
        connection.fail("there is no container \(id)")
    }

    /// Runs `operation` on a container after those before it.
    private func perform(
        _ id: String, _ connection: Connection,
        _ operation: @escaping (Container, _ done: @escaping () -> Void) -> Void
    ) {
        guard let slot = slot(id) else { return failUnknown(id, connection) }
        slot.perform { [unowned self] done in
            guard let container = slot.container else {
                failUnknown(id, connection)
                return done()
            }
            operation(container, done)
        }
    }

    // MARK: Create

    private func create(_ spec: ShimCreate, _ connection: Connection) {
        if let refusal = spec.refusal { return connection.fail(refusal) }
        guard let slot = makeSlot(spec.container) else {
            return connection.fail("the shim has \(ShimProtocol.containerLimit) containers already")
        }
        slot.perform { [unowned self] done in
            guard let old = slot.container else {
                return create(spec, in: slot, connection, done)
            }
            if old.spec.start == spec.start {
                answer(old, connection)
                return done()
            }
            if old.isAlive || old.spec.start > spec.start {
                let why = old.isAlive ? "has not ended" : "is newer"
                connection.fail(
                    "cannot create start \(spec.start) of \(spec.container): start \(old.spec.start) \(why)")
                return done()
            }
            // What is left of the start before. If it cannot be deleted, the runtime's create says why.
            runtime.run("delete", ["--force", spec.container]) { [unowned self] _ in
                create(spec, in: slot, connection, done)
            }
        }
    }

    private func create(
        _ spec: ShimCreate, in slot: ContainerSlot, _ connection: Connection, _ done: @escaping () -> Void
    ) {
        let finish = { [unowned self] (failure: String?) in
            // Who asked says for which container.
            if let failure { connection.fail(failure) }
            done()
            removeVacantSlots()
        }
        let log: LogWriter?
        do throws(KernelError) {
            log = try spec.makeLog()
        } catch {
            return finish("\(error)")
        }
        launch(
            "create", before: ["--bundle", spec.bundle], after: [spec.container], terminal: spec.terminal,
            stdin: spec.stdin
        ) { [unowned self] result in
            switch result {
            case .failure(let failure):
                // A runtime that was killed has cleaned nothing up: the next start would find its cgroup taken.
                runtime.run("delete", ["--force", spec.container]) { _ in finish(failure.description) }
            case .success(let process):
                do throws(KernelError) {
                    let io = try ProcessIO(loop: loop, stdio: process.stdio, log: log)
                    let container = Container(spec, pid: process.pid, io: io, loop: loop) { [unowned self] in
                        announce($0, $1)
                    }
                    slot.container = container
                    failpoint("shim.after_create")
                    announce(.created, container)
                    answer(container, connection)
                    reaper.watch(process.pid, since: process.moment) { [unowned self] status in
                        container.processEnded(status)
                        endStragglers(of: container)
                    }
                    finish(nil)
                } catch {
                    runtime.run("delete", ["--force", spec.container]) { _ in finish("\(error)") }
                }
            }
        }
    }

    // MARK: Changes

    private func start(_ id: String, _ connection: Connection) {
        perform(id, connection) { [unowned self] container, done in
            if container.isRunning || container.isPaused {
                answer(container, connection)
                return done()
            }
            guard container.isCreated else {
                connection.fail("cannot start container \(id): it has ended; create its next start first")
                return done()
            }
            if let refusal = leaseRefusal(id) {
                connection.fail("cannot start container \(id): \(refusal)")
                return done()
            }
            container.startBegins()
            enforceLeases()
            runtime.run("start", [id]) { [unowned self] failure in
                container.startEnds(failure: failure)
                if let failure {
                    connection.fail(failure)
                } else {
                    answer(container, connection)
                }
                done()
            }
        }
    }

    private func signal(_ id: String, _ number: Int32, all: Bool, _ connection: Connection) {
        guard (1...64).contains(number) else { return connection.fail("\(number) is no signal; 1 to 64 are") }
        guard let container = container(id) else { return failUnknown(id, connection) }
        guard container.isAlive else {
            return connection.fail("cannot signal container \(id): it has ended")
        }
        runtime.run("kill", (all ? ["--all"] : []) + [id, String(number)]) { [unowned self] failure in
            if let failure, container.isAlive {
                connection.fail("cannot signal container \(id): \(failure)")
            } else {
                answer(container, connection)
            }
        }
    }

    private func pause(_ id: String, _ connection: Connection) {
        perform(id, connection) { [unowned self] container, done in
            guard container.isRunning else {
                if container.isPaused {
                    answer(container, connection)
                } else {
                    connection.fail("cannot pause container \(id): it is not running")
                }
                return done()
            }
            runtime.run("pause", [id]) { [unowned self] failure in
                if let failure {
                    connection.fail("cannot pause container \(id): \(failure)")
                } else {
                    container.pauseEnds()
                    answer(container, connection)
                }
                done()
            }
        }
    }

    private func resume(_ id: String, _ connection: Connection) {
        perform(id, connection) { [unowned self] container, done in
            guard container.isPaused else {
                if container.isRunning {
                    answer(container, connection)
                } else {
                    connection.fail("cannot resume container \(id): it is not paused")
                }
                return done()
            }
            runtime.run("resume", [id]) { [unowned self] failure in
                if let failure {
                    connection.fail("cannot resume container \(id): \(failure)")
                } else {
                    container.resumeEnds()
                    answer(container, connection)
                }
                done()
            }
        }
    }

    private func resize(_ id: String, _ columns: UInt16, _ rows: UInt16, _ connection: Connection) {
        guard let container = container(id) else { return failUnknown(id, connection) }
        do throws(KernelError) {
            try container.io.resize(columns: columns, rows: rows)
            answer(container, connection)
        } catch {
            connection.fail("cannot resize the terminal of container \(id): \(error)")
        }
    }

    // MARK: Delete

    private func delete(_ id: String, force: Bool, _ connection: Connection) {
        guard let slot = slot(id) else { return answer(ShimResponse(), connection) }
        slot.perform { [unowned self] done in
            let finish = { [unowned self] (failure: String?) in
                if let failure {
                    connection.fail("cannot delete container \(id): \(failure)")
                } else {
                    answer(ShimResponse(), connection)
                }
                done()
                removeVacantSlots()
            }
            guard let container = slot.container else { return finish(nil) }
            guard container.isAlive else { return remove(container, from: slot, finish) }
            guard force else { return finish("it has not ended; signal it first, or delete it with force") }
            killNow(container) { [unowned self] failure in
                if let failure { finish(failure) } else { remove(container, from: slot, finish) }
            }
        }
    }

    private func remove(_ container: Container, from slot: ContainerSlot, _ finish: @escaping (String?) -> Void) {
        let id = container.spec.container
        runtime.run("delete", ["--force", id]) { [unowned self] failure in
            if let failure { return finish(failure) }
            slot.container = nil
            forgetExecs(of: id)
            announce(.deleted, container)
            finish(nil)
        }
    }

    /// Kills a container and waits until its exit is announced.
    private func killNow(_ container: Container, _ finish: @escaping (String?) -> Void) {
        runtime.run("kill", [container.spec.container, String(SIGKILL)]) { [unowned self] failure in
            // A runtime that has lost its state knows no container; our child is still our child.
            if failure != nil, reaper.isWatched(container.pid) { kill(container.pid, SIGKILL) }
            var isFinished = false
            let timer = loop.after(milliseconds: ShimLimits.killMilliseconds) {
                isFinished = true
                finish("process \(container.pid) has not ended \(ShimLimits.killMilliseconds / 1000) s after SIGKILL")
            }
            container.whenStopped { [unowned self] in
                if isFinished { return }
                loop.cancel(timer)
                finish(nil)
            }
        }
    }

    // MARK: Streams

    private func attach(_ spec: ShimAttach, _ connection: Connection) {
        guard let container = container(spec.container) else { return failUnknown(spec.container, connection) }
        connection.send(ShimResponse(container: container.state))
        if let code = container.exitCode {
            connection.send(.exit(code))
            return connection.finish()
        }
        container.io.attach(connection, stdin: spec.stdin, stdout: spec.stdout, stderr: spec.stderr)
        connection.become(
            Connection.StreamSession(
                io: container.io, stdin: spec.stdin, endsInput: container.spec.stdinOnce ?? true,
                signal: { [unowned self, unowned container] number in
                    guard (1...64).contains(number), container.isAlive else { return }
                    runtime.run("kill", [spec.container, String(number)]) { _ in }
                },
                disconnected: {}))
    }

    private func exec(_ spec: ShimExec, _ connection: Connection) {
        if let refusal = spec.refusal { return connection.fail(refusal) }
        guard let container = container(spec.container) else { return failUnknown(spec.container, connection) }
        guard container.isRunning else {
            return connection.fail("cannot exec in container \(spec.container): it is not running")
        }
        guard execs.count < ShimLimits.runningExecs else {
            return connection.fail("cannot exec in container \(spec.container): \(execs.count) processes run already")
        }
        guard !execs.contains(where: { $0.spec.container == spec.container && $0.spec.execID == spec.execID }) else {
            return connection.fail("cannot exec in container \(spec.container): \(spec.execID) runs already")
        }
        let file = temporaryPath("json")
        do throws(KernelError) {
            try File.open(file, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW).writeAll(
                spec.process.serialized(), subject: file)
        } catch {
            unlink(file)
            return connection.fail("cannot exec in container \(spec.container): \(error)")
        }
        launch(
            "exec", before: ["--process", file, "--detach"], after: [spec.container], terminal: spec.terminal,
            stdin: spec.stdin
        ) { [unowned self] result in
            unlink(file)
            switch result {
            case .failure(let failure):
                connection.fail("cannot exec in container \(spec.container): \(failure)")
            case .success(let process): began(spec, process, connection)
            }
        }
    }

    private func began(_ spec: ShimExec, _ process: LaunchedProcess, _ connection: Connection) {
        do throws(KernelError) {
            let io = try ProcessIO(loop: loop, stdio: process.stdio, log: nil)
            let exec = Exec(spec, pid: process.pid, io: io, loop: loop) { [unowned self] in execFinished($0) }
            execs.append(exec)
            announce(ShimEvent(.execStarted, at: .now(), exec: exec.state))
            connection.send(ShimResponse(exec: exec.state))
            io.attach(connection, stdin: true, stdout: true, stderr: true)
            connection.become(
                Connection.StreamSession(
                    io: io, stdin: true, endsInput: true, signal: { [unowned exec] in exec.signal($0) },
                    disconnected: { io.endInput() }))
            reaper.watch(process.pid, since: process.moment) { exec.processEnded($0) }
        } catch {
            kill(process.pid, SIGKILL)
            connection.fail("cannot exec in container \(spec.container): \(error)")
        }
    }

    private func shutDown(_ connection: Connection) {
        if let living = containers.first(where: \.isAlive) {
            return connection.fail("cannot shut down: container \(living.spec.container) has not ended")
        }
        answer(ShimResponse(), connection)
        shutDown()
    }
}
