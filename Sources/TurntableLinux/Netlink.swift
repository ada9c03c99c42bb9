internal import CTurntableLinux
internal import Glibc
public import TurntableCore

/// What becomes of one packet's destination, in the kernel's tables. A change is one message, built ahead and sent when it is due.
/// Those of nftables are in NFTables.swift.
public struct NetlinkMessage: Sendable {
    /// struct nlmsghdr, and what it is of.
    public private(set) var bytes: [UInt8]

    /// Bytes of a message's kind, flags (the low ones) and number in its header; ``NetlinkSocket/perform(_:but:what:)-(NetlinkMessage,_,_)`` sets the number.
    fileprivate static let kind = 4..<6, flags = 6, sequence = 8..<12

    /// Where packets for `destination` go: out of `device`, to the neighbour `gateway` if there is one. Replaces what was there.
    /// - Parameter prefixBits: of the destination; none gives the table's default route.
    public static func route(
        to destination: [UInt8], prefixBits: Int? = nil, gateway: [UInt8]? = nil, device: UInt32, table: UInt32? = nil
    ) -> NetlinkMessage {
        // At their address an interface and a gateway are reached by different scopes.
        let scope = gateway == nil ? RT_SCOPE_LINK : RT_SCOPE_UNIVERSE
        let header: [UInt8] = [
            family(destination), UInt8(prefixBits ?? destination.count * 8), 0, 0, UInt8(RT_TABLE_MAIN.rawValue), UInt8(RTPROT_STATIC),
            UInt8(scope.rawValue), UInt8(RTN_UNICAST), 0, 0, 0, 0,
        ]
        var message = NetlinkMessage(Int(RTM_NEWROUTE), NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE, header)
        if prefixBits != 0 { message.append(Int(RTA_DST.rawValue), destination) }
        if let gateway { message.append(Int(RTA_GATEWAY.rawValue), gateway) }
        message.append(Int(RTA_OIF.rawValue), native(device))
        if let table { message.append(Int(RTA_TABLE.rawValue), native(table)) }
        return message
    }

    /// Has packets from `source` that come in by `device` looked up in `table`. Of a rule that is there already the kernel says EEXIST.
    public static func rule(from source: [UInt8], device: String, table: UInt32) -> NetlinkMessage {
        let header: [UInt8] = [family(source), 0, UInt8(source.count * 8), 0, UInt8(RT_TABLE_UNSPEC.rawValue), 0, 0, UInt8(FR_ACT_TO_TBL), 0, 0, 0, 0]
        var message = NetlinkMessage(Int(RTM_NEWRULE), NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, header)
        message.append(Int(FRA_SRC), source)
        message.append(Int(FRA_IIFNAME), Array(device.utf8) + [0])
        message.append(Int(FRA_TABLE), native(table))
        return message
    }

    /// At which tunnel end the VXLAN `device` finds the card `mac`. Replaces what was there.
    public static func forwarding(of mac: [UInt8], to end: [UInt8], device: UInt32) -> NetlinkMessage {
        var message = neighbour(UInt8(PF_BRIDGE), NUD_NOARP | NUD_PERMANENT, NTF_SELF, device)
        message.append(Int(NDA_LLADDR), mac)
        message.append(Int(NDA_DST), end)
        return message
    }

    /// Which card has an address on `device`'s network, for good: nobody is asked for it.
    public static func neighbour(_ address: [UInt8], mac: [UInt8], device: UInt32) -> NetlinkMessage {
        var message = neighbour(family(address), NUD_PERMANENT, 0, device)
        message.append(Int(NDA_DST), address)
        message.append(Int(NDA_LLADDR), mac)
        return message
    }

    private static func neighbour(_ family: UInt8, _ state: Int32, _ flags: Int32, _ device: UInt32) -> NetlinkMessage {
        let header: [UInt8] = [family, 0, 0, 0] + native(device) + native(UInt16(state)) + [UInt8(flags), 0]
        return NetlinkMessage(Int(RTM_NEWNEIGH), NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE, header)
    }

    /// - Parameter flags: beside NLM_F_REQUEST. The kernel answers what has NLM_F_ACK, and what fails.
    init(_ type: Int, _ flags: Int32, _ header: [UInt8]) {
        bytes = Self.native(UInt32(0)) + Self.native(UInt16(type)) + Self.native(UInt16(NLM_F_REQUEST | flags))
        bytes += [UInt8](repeating: 0, count: 8) + header
        setLength()
    }

    mutating func append(_ type: Int, _ value: [UInt8]) {
        bytes += Self.attribute(type, value)
        setLength()
    }

    /// struct nlattr and its value, padded to four bytes.
    static func attribute(_ type: Int, _ value: [UInt8]) -> [UInt8] {
        native(UInt16(4 + value.count)) + native(UInt16(type)) + value + [UInt8](repeating: 0, count: -value.count & 3)
    }

    private mutating func setLength() { bytes.replaceSubrange(0..<4, with: Self.native(UInt32(bytes.count))) }

    /// The kernel says when it has done it.
    func answered() -> NetlinkMessage {
        var message = self
        message.bytes[Self.flags] |= UInt8(NLM_F_ACK)
        return message
    }

    fileprivate func numbered(_ sequence: UInt32) -> [UInt8] {
        var bytes = bytes
        bytes.replaceSubrange(Self.sequence, with: Self.native(sequence))
        return bytes
    }

    static func family(_ address: [UInt8]) -> UInt8 { UInt8(address.count == 4 ? AF_INET : AF_INET6) }

    static func native<Value: FixedWidthInteger>(_ value: Value) -> [UInt8] {
        unsafe withUnsafeBytes(of: value) { unsafe Array($0) }
    }
}

/// The kernel's door for its tables of one kind, in the network namespace of the thread that opens it.
public final class NetlinkSocket: Sendable {
    public enum Kind: Sendable {
        /// Routes, rules, neighbours and VXLAN entries.
        case routes
        /// nftables.
        case filters
    }

    private let socket: Descriptor
    private let kind: Kind
    private let lastSequence = Monitor<UInt32>(0)

    public init(_ kind: Kind = .routes) throws(TurntableError) {
        self.kind = kind
        let number = Glibc.socket(AF_NETLINK, Int32(SOCK_RAW.rawValue | SOCK_CLOEXEC.rawValue), kind == .routes ? NETLINK_ROUTE : NETLINK_NETFILTER)
        socket = Descriptor(owning: try checked(number < 0 ? -errno : number, kind == .routes ? "opening netlink" : "asking for nftables", remedy: kind.remedy))
        try Socket.setTimeouts(socket, receive: Limits.netlinkTime, send: Limits.netlinkTime)
        // Whoever may change tables is given it; nobody else gets as far.
        _ = tt_set_send_buffer(socket.rawValue, Int32(Limits.netlinkTransactionBytes))
    }

    /// Makes a change, and returns when the kernel has made it.
    /// - Parameter isDone: errno values that mean that nothing needs to be done.
    public func perform(_ message: NetlinkMessage, but isDone: Set<Int32> = [], what: @autoclosure () -> String) throws(TurntableError) {
        try perform([message], but: isDone, what: what())
    }

    /// Makes changes that are one: of a transaction the kernel answers the end, or what fails first.
    public func perform(_ messages: [NetlinkMessage], but isDone: Set<Int32> = [], what: @autoclosure () -> String) throws(TurntableError) {
        // One at a time: answers come in order, and what a request that timed out or failed left is skipped by its number.
        try lastSequence.update { (sequence) throws(TurntableError) in
            sequence &+= 1
            try Socket.write(socket, messages.flatMap { $0.numbered(sequence) }, what: what())
            while true {
                let answer = try Socket.read(socket, atMost: 4096, what: what())
                // struct nlmsgerr: an errno, negative, or 0. What was asked for comes before it.
                guard answer.count >= 20, Array(answer[NetlinkMessage.sequence]) == NetlinkMessage.native(sequence),
                    Array(answer[NetlinkMessage.kind]) == NetlinkMessage.native(UInt16(NLMSG_ERROR))
                else { continue }
                let failure = answer[16..<20].reversed().reduce(UInt32(0)) { $0 << 8 | UInt32($1) }
                let number = -Int32(bitPattern: failure)
                if number != 0, !isDone.contains(number) { try checked(-number, what(), remedy: kind.remedy) }
                return
            }
        }
    }
}

extension NetlinkSocket.Kind {
    fileprivate var remedy: String {
        switch self {
        case .routes: "it takes root, and the devices that are named"
        case .filters: "it takes root, and a kernel with nf_tables and nft_ct"
        }
    }
}

/// The kernel's number of a network device in this thread's namespace.
public func deviceIndex(_ name: String) throws(TurntableError) -> UInt32 {
    let index = unsafe if_nametoindex(name)
    guard index > 0 else { throw TurntableError(.unsupported, "looking for the network device \(name)", errorText(errno), remedy: "make it first") }
    return index
}
