internal import CTurntableLinux

/// After the kernel took `bytes` of `vectors` from `next` on: `next` is the first with something left, cut to what is.
func advance(_ vectors: UnsafeMutableBufferPointer<iovec>, from next: inout Int, by bytes: Int) {
    var bytes = bytes
    while bytes > 0, unsafe bytes >= vectors[next].iov_len {
        unsafe bytes -= vectors[next].iov_len
        next += 1
    }
    if bytes > 0 {
        unsafe vectors[next].iov_base += bytes
        unsafe vectors[next].iov_len -= bytes
    }
}
