internal import Glibc
internal import Transport
internal import TurntableCore
internal import WireFormat

/// Where a target's streams put what arrives: pages at their place in guest memory, device state side by side in a buffer.
///
/// Streams own different stripes, so their writes never meet; device state comes on one stream.
@safe final class Arrival: FrameSink, @unchecked Sendable {
    let layout: MemoryLayoutTable
    private let pages: any PageSink
    // Only what is written takes memory.
    private let state: UnsafeMutableRawBufferPointer

    init(pages: any PageSink, streams: Int) {
        self.pages = pages
        layout = MemoryLayoutTable(regionPages: pages.regions.map(\.pages.value), streams: streams)
        unsafe state = .allocate(byteCount: Limits.deviceStateBytes, alignment: pageBytes)
    }

    deinit { unsafe state.deallocate() }

    func destination(of extent: Extent) -> UnsafeMutableRawPointer {
        unsafe pages.address(of: extent.firstPage, in: extent.region)
    }

    func zero(_ extent: Extent) {
        unsafe memset(pages.address(of: extent.firstPage, in: extent.region), 0, extent.pageCount.bytes.value)
    }

    func deviceStateDestination(offset: Int, count: Int) throws(TurntableError) -> UnsafeMutableRawPointer {
        guard offset + count <= Limits.deviceStateBytes else {
            throw TurntableError(.protocol, "device state", "it reaches to byte \(offset + count), the limit is \(Limits.deviceStateBytes)")
        }
        return unsafe state.baseAddress! + offset
    }

    /// The device state, when every stream has delivered.
    func deviceState(bytes: Int) -> UnsafeRawBufferPointer { unsafe UnsafeRawBufferPointer(rebasing: state[..<bytes]) }
}
