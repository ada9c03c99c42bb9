internal import CTurntableLinux

/// XXH3-64: tells by accident only once in 2^64 that different bytes are the same; it stops no adversary.
public enum Digest {
    public static func of(_ bytes: [UInt8]) -> UInt64 { unsafe bytes.withUnsafeBytes { unsafe tt_digest($0.baseAddress, $0.count) } }

    /// Of `bytes` bytes from `address`, which nobody writes meanwhile.
    public static func of(_ address: UnsafeRawPointer, bytes: Int) -> UInt64 { unsafe tt_digest(address, bytes) }

    /// Of `count` units of `bytes` bytes, one after the other from `address`.
    public static func of(_ address: UnsafeRawPointer, units count: Int, of bytes: Int, into digests: UnsafeMutablePointer<UInt64>) {
        unsafe tt_digests(address, bytes, count, digests)
    }
}
