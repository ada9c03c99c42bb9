import Glibc

/// The one owner of a file descriptor.
struct OwnedDescriptor: ~Copyable {
    let number: Int32

    init(_ number: Int32) { self.number = number }

    deinit { _ = close(number) }
}

/// Writes all of `text`, waiting at most `controlReplyMilliseconds` for a reader; what cannot be delivered is given up.
func writeText(_ text: String, to descriptor: Int32) {
    let bytes = Array(text.utf8)
    var written = 0
    while written < bytes.count {
        var event = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
        // One pollfd, and the slice stays alive for the call.
        let ready = unsafe poll(&event, 1, LineLimits.controlReplyMilliseconds)
        if ready < 0 && errno == EINTR { continue }
        guard ready > 0 else { return }
        let count = unsafe bytes[written...].withUnsafeBytes { unsafe write(descriptor, $0.baseAddress, $0.count) }
        if count < 0 && errno == EINTR { continue }
        guard count > 0 else { return }
        written += count
    }
}
