import Glibc
import Kernel
import Testing

extension ProgramResult {
    fileprivate var text: String { String(decoding: output, as: UTF8.self) }
}

@Suite("Installing below a folder, as packages are made")
struct InstallScriptTests {
    private func write(_ text: String, to path: String) throws {
        let file = try #require(fopen(path, "w"))
        defer { fclose(file) }
        #expect(fputs(text, file) >= 0)
    }

    @Test("what was installed goes away again, but for what somebody changed")
    func staging() throws {
        var template = Array("/tmp/martlet-test-\(getpid())-install.XXXXXX".utf8CString)
        let top = try #require(mkdtemp(&template).map { String(cString: $0) })
        defer { _ = try? Program("/bin/rm", ["-rf", top]).run() as ProgramResult }
        // Not there yet, and with a blank.
        let destination = "\(top)/new root"
        let build = "\(top)/build"
        let plugins = ["martlet-overlay", "portmap", "loopback", "bandwidth"]
        let programs = ["martlet", "martlet-runtime", "martlet-shim", "martlet-nvml"] + plugins
        #expect(mkdir(build, 0o755) == 0)
        for name in programs {
            try write("#!/bin/sh\n", to: "\(build)/\(name)")
            #expect(chmod("\(build)/\(name)", 0o755) == 0)
        }
        let script = "\(SourceTree().root)/scripts/install.sh"
        let environment = ["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "DESTDIR=\(destination)", "BUILD=\(build)"]
        func call(_ word: String) throws -> ProgramResult {
            try Program(script, [word], environment: environment, timeoutMilliseconds: 60_000).run()
        }
        func files() throws -> String {
            try (Program("/usr/bin/find", [destination, "-type", "f"]).run() as ProgramResult).text
        }

        #expect(try call("install").status == .exited(0))
        for name in ["usr/local/bin/martlet", "usr/local/libexec/martlet/martlet-shim", "etc/martlet/agent.env"] {
            #expect(try files().contains("\(destination)/\(name)\n"))
        }
        try write("MARTLET_AGENT_FLAGS=--node-name x\n", to: "\(destination)/etc/martlet/agent.env")
        let again = try call("install")
        #expect(again.status == .exited(0))
        #expect(again.text.contains("kept      /etc/martlet/agent.env"))
        #expect(try call("uninstall").status == .exited(0))
        #expect(try files() == "\(destination)/etc/martlet/agent.env\n")
        let third = try call("uninstall")
        #expect(third.status == .exited(1))
        #expect(third.errorText.contains("nothing is installed under"))
    }
}
