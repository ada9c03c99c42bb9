internal import Transport
internal import TurntableCore
internal import WireFormat

/// Where one data stream's frames go: the stripes of the window that are the stream's, page after page.
@safe final class WindowSink: FrameSink, @unchecked Sendable {
    private let window: PageWindow
    private let stream: Int
    // The receiving thread's alone.
    /// The page that is to come next.
    private var next: Int
    /// After the last page of the frame that is coming.
    private var end = 0

    init(_ window: PageWindow, stream: Int) {
        self.window = window
        self.stream = stream
        next = stream * Limits.stripePages
    }

    var layout: MemoryLayoutTable { window.layout }

    func destination(of extent: Extent) throws(TurntableError) -> UnsafeMutableRawPointer {
        let wanted = window.index(of: next)
        guard extent.firstPage.value == wanted else { throw refused("it has page \(extent.firstPage.value) of the window, not \(wanted)") }
        try window.awaitRoom(at: next)
        let address = unsafe window.address(of: next)
        end = next + extent.pageCount.value
        next = window.successor(of: end - 1)
        return unsafe address
    }

    /// The frame has come whole.
    func finishFrame() { if end > 0 { window.fill(to: end) } }

    func zero(_ extent: Extent) throws(TurntableError) { throw refused("it has zero pages, which an outline tells of") }
    func deviceStateDestination(offset: Int, count: Int) throws(TurntableError) -> UnsafeMutableRawPointer { throw refused("it has device state") }

    private func refused(_ why: String) -> TurntableError { TurntableError(.protocol, "a frame of data stream \(stream)", why) }
}
