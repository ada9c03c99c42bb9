internal import CTurntableLinux
internal import Glibc
internal import TurntableCore
internal import TurntableLinux

/// Moves bytes from one socket to another through a pipe, by reference: no process reads them (splice(2)). One thread's.
struct SplicePipe: ~Copyable {
    private let inlet: Descriptor
    private let outlet: Descriptor
    static let bytes = 1 << 20

    init() throws(TurntableError) {
        var ends: (Int32, Int32) = (-1, -1)
        let result = unsafe withUnsafeMutableBytes(of: &ends) { unsafe tt_pipe($0.baseAddress!.assumingMemoryBound(to: Int32.self), Int32(Self.bytes)) }
        try checked(result, "making a pipe")
        outlet = Descriptor(owning: ends.0)
        inlet = Descriptor(owning: ends.1)
    }

    /// Moves `count` bytes, or less if what they come from ends. Gives how many were moved.
    /// - Parameter wait: is called every moment that nothing moves, with how long that is now; throws to end it.
    func move(
        _ count: Int, from source: borrowing Descriptor, to target: borrowing Descriptor, wait: (Nanoseconds) throws(TurntableError) -> Void
    ) throws(TurntableError) -> Int {
        var left = count
        while left > 0 {
            let filled = try spliced(source.rawValue, inlet.rawValue, min(left, Self.bytes), more: true, "receiving", wait)
            if filled == 0 { break }
            left -= filled
            var held = filled
            while held > 0 { held -= try spliced(outlet.rawValue, target.rawValue, held, more: left > 0, "sending on", wait) }
        }
        return count - left
    }

    /// Moves what comes, at once, until it ends. Gives how much that was.
    func moveAll(
        from source: borrowing Descriptor, to target: borrowing Descriptor, atMost limit: Int, wait: (Nanoseconds) throws(TurntableError) -> Void
    ) throws(TurntableError) -> Int {
        var moved = 0
        while true {
            let filled = try spliced(source.rawValue, inlet.rawValue, Self.bytes, more: true, "receiving", wait)
            if filled == 0 { return moved }
            moved += filled
            guard moved <= limit else {
                throw TurntableError(.refused, "a control stream", "it has carried \(ByteCount(limit)), which no migration needs")
            }
            var held = filled
            while held > 0 { held -= try spliced(outlet.rawValue, target.rawValue, held, more: false, "sending on", wait) }
        }
    }

    private func spliced(
        _ from: Int32, _ to: Int32, _ count: Int, more: Bool, _ what: StaticString, _ wait: (Nanoseconds) throws(TurntableError) -> Void
    ) throws(TurntableError) -> Int {
        try untilMoved(what, wait) { tt_splice(from, to, count, more ? 1 : 0) }
    }
}

/// Calls `body`, which gives bytes moved or `-errno`, until something moved or has ended.
/// - Parameter wait: as for ``SplicePipe``.
func untilMoved(
    _ what: StaticString, _ wait: (Nanoseconds) throws(TurntableError) -> Void, _ body: () -> Int
) throws(TurntableError) -> Int {
    let began = Clock.now
    while true {
        let moved = body()
        if moved >= 0 { return moved }
        guard moved == -Int(EAGAIN) else { throw TurntableError(.line, "\(what)", errorText(Int32(-moved))) }
        try wait(Clock.now - began)
    }
}
