import Glibc
import JSON
import Kernel
import Testing

extension SystemSuite {
    /// What is run where there is a GPU, run on one that is made up: so that it can be relied on there.
    @Suite("The check of machines with a GPU", .serialized) struct HardwareChecks {
        private struct Report: Decodable {
            struct Step: Decodable {
                let name: String
                let outcome: String
                let reason: String
                let problems: [String]
            }
            let failed: Int
            let steps: [Step]

            subscript(_ name: String) -> Step? { steps.first { $0.name == name } }
        }

        private static let source = String(#filePath.dropLast("/Tests/SystemTests/HardwareCheckTests.swift".count))
        private let folder: String

        init() throws {
            folder = "/tmp/martlet-test-\(getpid())-hardware"
            try File.makeDirectories(folder)
        }

        @discardableResult
        private func run(_ program: String, _ arguments: [String], _ environment: [String] = []) throws -> ProgramResult
        {
            let path = getenv("PATH").map { String(cString: $0) } ?? "/usr/bin:/bin"
            return try Program(
                "\(Self.source)/\(program)", arguments, environment: ["PATH=\(path)", "HOME=/root"] + environment,
                timeoutMilliseconds: 480_000
            ).run()
        }

        /// Runs it on a machine of so many GPUs.
        private func check(
            gpus: Int, _ machine: [String] = [], _ options: [String] = []
        ) throws -> (code: Int32, report: Report, inventory: JSONValue) {
            _ = try? Tree.remove(folder)
            try File.makeDirectories(folder)
            for (program, arguments) in [
                ("scripts/gpucheck.sh", ["\(folder)/package"]),
                ("Tests/Hardware/fake/machine", ["\(folder)/machine", "\(gpus)"] + machine),
            ] {
                let made = try run(program, arguments, ["BUILD=\(TestCluster.programs)"])
                try #require(made.status == .exited(0), "\(program): \(made.errorText)")
            }
            let result = try run(
                "Tests/Hardware/gpu-check",
                ["--package", "\(folder)/package", "--fake", "\(folder)/machine"] + options,
                // By these names what an interrupted run leaves is found.
                ["OUT=\(folder)/out", "TMPDIR=\(folder)", "GPU_CHECK_CGROUP=martlet-test-\(getpid())-hardware"])
            let limits = JSONLimits(bytes: 16 << 20, stringBytes: 1 << 20)
            let report = try JSONCoding.decode(
                Report.self, from: File.read("\(folder)/out/report.json"), limits: limits)
            let inventory = try JSONValue.parse(File.read("\(folder)/out/inventory.json"), limits: limits)
            return (result.status.shellCode, report, inventory)
        }

        @Test("It finds nothing wrong with GPUs that work, and says what it did")
        func sound() throws {
            defer { _ = try? Tree.remove(folder) }
            let (code, report, inventory) = try check(gpus: 2)
            for step in report.steps {
                // Not every machine has the other engine's client, and none a vendor's program that runs without its driver.
                let allowed = ["docker", "tools"].contains(step.name) ? ["passed", "skipped"] : ["passed"]
                #expect(allowed.contains(step.outcome), "\(step.name): \(step.reason) \(step.problems)")
            }
            #expect(code == 0 && report.failed == 0)
            #expect(report.steps.count >= 12, "\(report.steps.map(\.name))")
            #expect(inventory["commands"] != nil && inventory["files"] != nil)
        }

        @Test("A GPU that computes wrongly is found, and the check fails")
        func wrong() throws {
            defer { _ = try? Tree.remove(folder) }
            let (code, report, _) = try check(gpus: 1, ["-DWRONG"], ["--steps", "discovery grant"])
            #expect(code == 1)
            #expect(report["discovery"]?.outcome == "passed")
            #expect(report["grant"]?.outcome == "failed")
            #expect(report["grant"]?.problems.contains { $0.contains("wrong") } == true, "\(report.steps)")
        }

        @Test("Where there is no GPU nothing is checked, and each step says why")
        func none() throws {
            defer { _ = try? Tree.remove(folder) }
            let (code, report, _) = try check(gpus: 0)
            #expect(code == 0 && report.failed == 0)
            #expect(report["grant"]?.outcome == "skipped")
            for step in report.steps where step.outcome == "skipped" { #expect(!step.reason.isEmpty, "\(step.name)") }
        }
    }
}
