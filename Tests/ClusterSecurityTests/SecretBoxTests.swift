import ClusterSecurity
import Glibc
import JSON
import Kernel
import Testing

@Suite struct SecretBoxTests {
    private func withKey(_ body: (SecretBox, String) throws -> Void) throws {
        let folder = "/tmp/martlet-box-\(UInt64.random(in: 0...UInt64.max))"
        try File.makeDirectories(folder)
        defer { _ = try? Tree.remove(folder) }
        let path = "\(folder)/secrets.key"
        try body(try SecretBox(makingKeyFile: path), path)
    }

    @Test(arguments: [0, 1, 31, 4096, 500 << 10])
    func opensWhatItSealed(_ size: Int) throws {
        try withKey { box, path in
            let value = (0..<size).map { UInt8(truncatingIfNeeded: $0 &* 31) }
            let sealed = try box.seal(value, id: "a", name: "password")
            #expect(try box.open(sealed, id: "a", name: "password") == value)
            let again = try #require(try SecretBox(keyFile: path))
            #expect(try again.open(sealed, id: "a", name: "password") == value)
        }
    }

    @Test func theSameValueNeverLooksTheSame() throws {
        try withKey { box, _ in
            let sealed = try (0..<100).map { _ in try box.seal([1, 2, 3], id: "a", name: "n") }
            #expect(Set(sealed).count == 100)
        }
    }

    @Test func everyBitCounts() throws {
        try withKey { box, _ in
            let sealed = try #require(Base64.decode(try box.seal(Array("value".utf8), id: "a", name: "n")))
            for index in sealed.indices {
                for bit in 0..<8 {
                    var changed = sealed
                    changed[index] ^= 1 << bit
                    #expect(throws: SecurityError.self) {
                        try box.open(Base64.encode(changed), id: "a", name: "n")
                    }
                }
            }
            for length in sealed.indices {
                #expect(throws: SecurityError.self) {
                    try box.open(Base64.encode(Array(sealed[..<length])), id: "a", name: "n")
                }
            }
        }
    }

    @Test func recordsCannotBeSwapped() throws {
        try withKey { box, _ in
            let sealed = try box.seal([1], id: "a", name: "n")
            #expect(throws: SecurityError.self) { try box.open(sealed, id: "b", name: "n") }
            #expect(throws: SecurityError.self) { try box.open(sealed, id: "a", name: "m") }
        }
    }

    @Test func anotherKeyOpensNothingAndTheErrorNamesTheSecret() throws {
        try withKey { box, _ in
            let sealed = try box.seal([1], id: "a", name: "password")
            try withKey { other, _ in
                let error = #expect(throws: SecurityError.self) { try other.open(sealed, id: "a", name: "password") }
                #expect(error?.description.contains("password") == true)
            }
        }
    }

    @Test func theKeyIsItsOwnersAlone() throws {
        try withKey { _, path in
            var info = stat()
            #expect(stat(path, &info) == 0 && info.st_mode & 0o7777 == 0o600 && info.st_size == 32)
            #expect(!File.exists(path + ".new"))
            for mode: mode_t in [0o640, 0o604, 0o620, 0o601] {
                chmod(path, mode)
                let error = #expect(throws: SecurityError.self) { try SecretBox(keyFile: path) }
                #expect(error?.description.contains("chmod 600") == true)
            }
        }
    }

    @Test func aKeyIsNeverReplacedOrGuessed() throws {
        try withKey { _, path in
            let before = try File.read(path)
            #expect(throws: SecurityError.self) { try SecretBox(makingKeyFile: path) }
            #expect(try File.read(path) == before)
            try File.replace(path, with: Array(before.dropLast()))
            #expect(throws: SecurityError.self) { try SecretBox(keyFile: path) }
            try File.removeFile(path)
            #expect(try SecretBox(keyFile: path).map { _ in true } == nil)
            #expect(symlink("/dev/zero", path) == 0)
            #expect(throws: SecurityError.self) { try SecretBox(keyFile: path) }
        }
    }
}
