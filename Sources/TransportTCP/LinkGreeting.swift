// How a source, and an element before another, hears from link elements (WireFormat/LinkPass.swift).

package import TurntableCore
package import TurntableLinux
package import WireFormat

extension LinkAnswer {
    /// Waits until all elements on the way let the connection through.
    /// - Throws: why one does not.
    package static func awaitPassage(on socket: borrowing Descriptor) throws(TurntableError) {
        let answer = try read(on: socket, within: Limits.helloTime + Limits.helloTime)
        guard answer.verdict == .passed else { throw answer.error }
    }

    /// What an element said that stopped a data stream; nil if none did.
    static func lateWord(on socket: borrowing Descriptor) -> TurntableError? {
        guard (try? Socket.waitReadable(socket, within: .zero)) == true, let answer = try? read(on: socket, within: Limits.pollTime),
            answer.verdict != .passed
        else { return nil }
        return answer.error
    }

    private var error: TurntableError { TurntableError(verdict == .refused ? .refused : .line, "going over the link", reason) }

    private static func read(on socket: borrowing Descriptor, within limit: Nanoseconds) throws(TurntableError) -> LinkAnswer {
        let what = "hearing from the link element"
        let head = try Socket.readExactly(socket, headBytes, within: limit, what: what)
        do throws(WireError) {
            let count = try reasonBytes(head)
            guard let reason = count == 0 ? [] : try? Socket.readExactly(socket, count, within: limit, what: what) else {
                throw WireError(.truncated, value: 0, limit: UInt64(count), offset: headBytes)
            }
            return try LinkAnswer(decoding: head + reason)
        } catch {
            throw TurntableError(.protocol, what, error.description, remedy: "leave out --via if there is no element at that address")
        }
    }
}
