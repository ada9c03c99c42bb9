// libxl makes a domain's devices at the target, which takes their scripts seconds, when the domain's stream has ended; the guest
// stands still meanwhile. But where both hosts have turntable-xen-helper nothing more of the domain comes in that stream after
// the helpers' greeting, and if there is no device model, nothing of libxl's either but its end. So libxl gets an end at once, and
// the real one is taken out when it comes. xl still starts the domain only when the source's xl says so, after both helpers are done.

internal import TurntableCore
internal import WireFormat

/// xl's stream on its way to `xl migrate-receive`.
struct EarlyEnd {
    private enum State {
        /// What has come is kept, to find a greeting in.
        case looking([UInt8])
        /// So many bytes of the real end are to come.
        case ending(Int)
        case done
    }
    private var state: State

    /// - Parameter isUsed: the program at the end of the stream starts turntable-xen-helper. Xen's own would take the end for its stream's.
    init(isUsed: Bool = true) { state = isUsed ? .looking([]) : .done }

    /// What tells turntable-xen-helper that its stream passes here, and where it reads whether xl is ready (Readiness.swift).
    static let setting = "TURNTABLE_EARLY_END"
    /// libxl's record of that name: type u32 (0) | length u32 (0).
    private static let end = [UInt8](repeating: 0, count: 8)

    /// What of the next bytes, and for them, xl is given.
    mutating func pass(_ bytes: [UInt8]) throws(TurntableError) -> [UInt8] {
        switch state {
        case .looking(let before):
            let head = before + bytes
            guard let (greeting, end) = try StreamGreeting.find(in: head) else {
                state = head.count > Limits.xlHeadBytes ? .done : .looking(head)
                return bytes
            }
            state = greeting.isLast ? .ending(Self.end.count) : .done
            let rest = Array(head[end...])
            return Array(bytes.prefix(bytes.count - rest.count)) + (greeting.isLast ? Self.end : []) + (try pass(rest))
        case .ending(let left):
            let taken = bytes.prefix(left)
            guard taken.allSatisfy({ $0 == 0 }) else {
                throw TurntableError(
                    .protocol, "xl's stream", "after the greeting of turntable-xen-helper it does not end", remedy: "use one version on both hosts")
            }
            state = taken.count == left ? .done : .ending(left - taken.count)
            return Array(bytes.dropFirst(taken.count))
        case .done: return bytes
        }
    }
}
