import Testing

@testable import Volumes

/// `--tmpfs` specifications.
@Suite struct TmpfsMountTests {
    @Test func defaultsAreDockers() throws {
        let mount = try TmpfsMount(parsing: "/run")
        #expect(mount.destination == "/run")
        #expect(mount.options == ["rw", "nosuid", "nodev", "noexec", "mode=1777"])
    }

    @Test func allOptionsAreRead() throws {
        let mount = try TmpfsMount(parsing: "/run/x:size=64m,mode=0750,uid=5,gid=6,exec,suid,dev,ro")
        #expect(mount.size == 64 << 20 && mount.mode == 0o750 && mount.uid == 5 && mount.gid == 6)
        #expect(mount.options == ["ro", "suid", "dev", "exec", "mode=750", "size=67108864", "uid=5", "gid=6"])
    }

    @Test(arguments: [("1", 1), ("4k", 4096), ("2M", 2 << 20), ("3g", 3 << 30), ("8589934591g", 0x7fff_ffff_c000_0000)])
    func sizesAreBytesOrBinaryMultiples(text: String, bytes: UInt64) throws {
        #expect(try TmpfsMount(parsing: "/t:size=\(text)").size == bytes)
    }

    @Test(arguments: [
        "", "relative", "/", "//", "/a/../b", "/a\0b", "/t:", "/t:,", "/t:size", "/t:size=", "/t:size=-1", "/t:size=0",
        "/t:size=1.5m", "/t:size=50%", "/t:size=99999999999999999999", "/t:size=8589934592g", "/t:size= 1",
        "/t:size=0x10", "/t:size=\u{ff11}", "/t:mode=", "/t:mode=8", "/t:mode=17777", "/t:mode=-1", "/t:mode=+7",
        "/t:uid=root", "/t:uid=4294967295", "/t:gid=", "/t:ro=1", "/t:ro,rw", "/t:exec,noexec", "/t:size=1,size=2",
    ])
    func isMalformed(_ text: String) {
        do {
            _ = try TmpfsMount(parsing: text)
            Issue.record("accepted")
        } catch {
            #expect(
                (error as? VolumeError)?.kind == (text == "/t:" || text == "/t:," ? .unsupported : .invalidArgument))
        }
    }

    @Test(arguments: ["/t:huge=always", "/t:nr_inodes=5", "/t:SIZE=1", "/t:bind"]) func isRefusedByName(_ text: String)
    {
        do {
            _ = try TmpfsMount(parsing: text)
            Issue.record("accepted")
        } catch {
            let refusal = error as? VolumeError
            #expect(refusal?.kind == .unsupported)
            #expect(refusal?.message.contains(text.dropFirst(3).prefix { $0 != "=" }) == true)
        }
    }
}
