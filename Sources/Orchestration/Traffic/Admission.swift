internal import Foundation
internal import TurntableCore

/// Whether a migration can begin, as far as the records say.
enum Admission {
    /// The downtime budget unless somebody says otherwise, as `turntable send`'s.
    static let downtimeMilliseconds = 300.0
    static let leastBitsPerSecond = 1e6
    static let mostBitsPerSecond = 1e13
    static let mostDowntimeMilliseconds = 3_600_000.0

    static func check(_ request: MigrationRequest, _ vm: VMRecord) throws(Problem) {
        if let epoch = request.epoch, epoch != vm.epoch {
            throw Problem(
                .preconditionFailed, "epoch", "moving \(request.vm)", "its epoch is \(vm.epoch), and the request is for \(epoch)",
                remedy: "look where it is now, and decide again")
        }
        if vm.site == request.target {
            throw Problem(.conflict, "refused", "moving \(request.vm)", "it is at \(request.target) already")
        }
        guard vm.state == "here" || vm.state == "migrating" || vm.state == "interrupted" else {
            throw Problem(.conflict, "refused", "moving \(request.vm)", "it is \(vm.state) at \(vm.site)", remedy: "start it there first")
        }
    }

    /// What can be said of a request without looking anywhere.
    static func check(_ request: MigrationRequest) throws(Problem) {
        func bad(_ member: String, _ why: String) -> Problem { Problem(.badRequest, "body", member, why) }
        for (member, name) in [("vm", request.vm), ("target", request.target)] {
            do throws(TurntableError) { try MachineName.check(name) } catch { throw bad(member, error.why) }
        }
        if let id = request.id, !isIdentifier(id) { throw bad("id", "it is no UUID in lower case") }
        if let time = request.downtimeMilliseconds, !(time >= 1 && time <= mostDowntimeMilliseconds) {
            throw bad("downtimeMilliseconds", "it must be 1 to \(Int(mostDowntimeMilliseconds))")
        }
        if let rate = request.bitsPerSecond, !(rate >= leastBitsPerSecond && rate <= mostBitsPerSecond) {
            throw bad("bitsPerSecond", "it must be \(BitRate(bitsPerSecond: leastBitsPerSecond)) to \(BitRate(bitsPerSecond: mostBitsPerSecond))")
        }
        if let streams = request.streams, !(1...Limits.streams).contains(streams) { throw bad("streams", "it must be 1 to \(Limits.streams)") }
    }

    /// A migration's name: a UUID, in one spelling.
    static func isIdentifier(_ text: String) -> Bool { UUID(uuidString: text)?.uuidString.lowercased() == text }
}
