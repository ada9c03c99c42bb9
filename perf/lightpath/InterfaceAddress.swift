import Glibc

/// An IPv4 address and its prefix, such as 10.5.0.1/30.
struct InterfaceAddress: CustomStringConvertible {
    /// Network byte order.
    let address: UInt32
    let prefixBits: Int32
    let description: String

    init(parsing text: String) throws(LineError) {
        let parts = text.split(separator: "/", omittingEmptySubsequences: false)
        var parsed = in_addr()
        guard parts.count == 2, let bits = Int32(parts[1]), (1...32).contains(bits),
            // inet_pton(3) reads a terminated string and writes one in_addr.
            unsafe inet_pton(AF_INET, String(parts[0]), &parsed) == 1
        else {
            throw .refused("address '\(text)' is not an IPv4 address with a prefix; write for example 10.5.0.1/30")
        }
        address = parsed.s_addr
        prefixBits = bits
        description = text
    }
}
