import CTurntableLinux

/// How many frames of the line one read is, and what they occupy. A super-frame is cut every `segment_bytes` of payload and
/// its headers are repeated in front of each piece.
struct LineSize {
    let frames: UInt64
    /// IP packets, headers repeated.
    let packetBytes: UInt64

    /// With what each frame adds on the line.
    var wireBytes: UInt64 { packetBytes + frames * LineLimits.overheadBytesPerFrame }

    /// `frame` is `frameBytes` long, at least a frame header.
    init(frame: UnsafeRawPointer, frameBytes: UInt64) {
        let bytes = frameBytes - UInt64(TT_TUN_FRAME_HEADER_BYTES)
        var header = tt_tun_frame_header()
        unsafe tt_tun_frame_header_read(frame, &header)
        let dataOffset = UInt64(TT_TUN_FRAME_HEADER_BYTES) + UInt64(header.transport_offset) + 12
        guard header.is_segmented != 0, header.transport_offset > 0, dataOffset < frameBytes else {
            frames = 1
            packetBytes = bytes
            return
        }
        // Inside the frame, as just checked: the upper half of the byte is the TCP header's length in words.
        let words = UInt64(unsafe frame.load(fromByteOffset: Int(dataOffset), as: UInt8.self) >> 4)
        let headerBytes = min(UInt64(header.transport_offset) + words * 4, bytes)
        let segmentBytes = UInt64(header.segment_bytes)
        frames = max((bytes - headerBytes + segmentBytes - 1) / segmentBytes, 1)
        packetBytes = bytes + (frames - 1) * headerBytes
    }
}
