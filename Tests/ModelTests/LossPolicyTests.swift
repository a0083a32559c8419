import JSON
import Model
import Testing

@Suite struct LossPolicies {
    let images: Admission.ImageResolver = { _ in Admission.ResolvedImage(digest: "sha256:1") }

    func admitted(
        _ loss: LossPolicy?, kind: Workload.Kind = .service, grace: Int = 10
    ) throws(AdmissionError) -> LossPolicy? {
        var pod = PodSpec(containers: [ContainerSpec(image: "web")], loss: loss)
        pod.containers[0].stopGrace = grace
        return try Admission().pod(pod, kind: kind, images: images).loss
    }

    func refusal(_ loss: LossPolicy, grace: Int = 10) -> AdmissionError? {
        do {
            _ = try admitted(loss, grace: grace)
            return nil
        } catch {
            return error
        }
    }

    @Test func aServiceIsReplacedAfterAMinuteAndAContainerNever() throws {
        #expect(try admitted(nil) == LossPolicy(replaceAfter: 60, giveUpAfter: 86_400))
        #expect(try admitted(nil, kind: .container) == LossPolicy())
        let own = LossPolicy(replaceAfter: 20, onReturn: .keepOriginal)
        #expect(try admitted(own, kind: .container) == own)
    }

    @Test func timesAreInBoundsAndInOrder() {
        #expect(refusal(LossPolicy(replaceAfter: 14))?.field == "$.pod.loss.replaceAfter")
        #expect(refusal(LossPolicy(giveUpAfter: 40_000_000))?.field == "$.pod.loss.giveUpAfter")
        #expect(refusal(LossPolicy(replaceAfter: 60, giveUpAfter: 59))?.message.contains("replaceAfter, 60") == true)
        #expect(refusal(LossPolicy(replaceAfter: 60, giveUpAfter: 60)) == nil)
        #expect(refusal(LossPolicy(onDisconnect: .stopAfter(4)))?.field == "$.pod.loss.onDisconnect.stopAfter")
    }

    @Test func whatStopsByItselfIsReplacedOnlyWhenItHasEndedForCertain() {
        // 30 s without contact, 10 s of grace, 5 s and a twentieth for the clocks.
        let policy = LossPolicy(replaceAfter: 46, onDisconnect: .stopAfter(30))
        #expect(refusal(policy)?.message.hasSuffix("the least is 47") == true)
        #expect(refusal(LossPolicy(replaceAfter: 47, onDisconnect: .stopAfter(30))) == nil)
        #expect(refusal(LossPolicy(replaceAfter: 47, onDisconnect: .stopAfter(30)), grace: 11) != nil)
        #expect(refusal(LossPolicy(giveUpAfter: 46, onDisconnect: .stopAfter(30))) != nil)
        #expect(refusal(LossPolicy(onDisconnect: .stopAfter(30))) == nil)
    }

    @Test func anOriginalThatWasStoppedIsNotKept() {
        let policy = LossPolicy(replaceAfter: 100, onReturn: .keepOriginal, onDisconnect: .stopAfter(30))
        #expect(refusal(policy)?.field == "$.pod.loss.onReturn")
    }

    @Test func olderRecordsOfInstancesAreRead() throws {
        let instance = Instance(
            id: InstanceID("i"), workload: WorkloadID("w"), slot: 1, name: "web.1", containers: [], epoch: 3,
            displaced: [Displaced(TaskID("t"), .lost, since: Timestamp(nanoseconds: 1))],
            createdAt: Timestamp(nanoseconds: 0))
        let written = try JSONCoding.encode(instance)
        #expect(try JSONCoding.decode(Instance.self, from: written) == instance)
        let older = String(decoding: written, as: UTF8.self)
            .replacing(#/,?"displaced":\[[^\]]*\]/#, with: "")
        #expect(!older.contains("displaced"))
        #expect(try JSONCoding.decode(Instance.self, from: Array(older.utf8)).displaced == [])
    }
}
