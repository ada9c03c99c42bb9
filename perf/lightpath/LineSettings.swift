/// What a line is made of, as asked for on the command line.
struct LineSettings {
    var namespaceNames: [String]
    var createNamespaces: Bool
    var replaceNamespaces: Bool
    var device: String
    var mtuBytes: Int
    /// One for each end, where wanted.
    var addresses: [InterfaceAddress?]
    var rate: BitRate
    var delay: LineDelay
    var loss: LossRatio
    var queue: ByteSize
    var maximumRate: BitRate
    var maximumDelay: LineDelay
    var superFrames: Bool
    /// nil leaves the namespaces' TCP settings alone.
    var tcpBuffers: ByteSize?
    var seed: UInt64
}
