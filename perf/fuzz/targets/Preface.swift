// The greeting of whoever connects.

@c(LLVMFuzzerTestOneInput)
public func fuzz(_ start: UnsafePointer<UInt8>, _ count: Int) -> CInt {
    let bytes = unsafe Array(UnsafeBufferPointer(start: start, count: count))
    guard let preface = try? Preface.decode(bytes) else { return 0 }
    precondition(preface.encoded() == bytes, "a preface that was read is written as it was")
    if let version = try? preface.commonVersion() { precondition(version >= preface.lowestVersion && version <= preface.highestVersion) }
    return 0
}
