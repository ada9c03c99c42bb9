internal import CTurntableLinux
internal import Glibc
internal import TurntableCore

/// A table of nftables and what it holds, as messages to the kernel: what `nft` would tell it, without a process. Tables of others with
/// the same hooks are not touched. Numbers in these messages have their high byte first.
public struct NFTable: Sendable {
    let name: String
    let isV6: Bool

    public init(_ name: String, isV6: Bool) { (self.name, self.isV6) = (name, isV6) }

    /// Where packets meet a chain: enum nf_inet_hooks.
    public enum Hook: UInt32, Sendable { case prerouting = 0, input = 1, output = 3, postrouting = 4 }

    /// What keys are.
    public enum Kind: Sendable { case address, device }

    /// One of a packet's two addresses.
    public enum Address: Sendable { case source, destination }

    /// What a rule does, one after the other. It has one register; who finds nothing leaves the rule.
    public enum Step: Sendable {
        /// Goes on if the packet's address is in a set.
        case find(Address, in: String)
        /// Goes on if the device by which the packet leaves is not in a set.
        case leavesByNone(of: String)
        /// The packet is of no session: whatever the kernel knows of sessions is not asked.
        case notrack
        /// An address becomes what a map has for it, and checksums are corrected.
        case translate(Address, by: String)
    }

    // MARK: - Transactions

    /// Has all changes happen at once, or none.
    public static func transaction(_ changes: [NetlinkMessage]) -> [NetlinkMessage] {
        precondition(!changes.isEmpty, "the end of a transaction is its last change")
        return [border(NFNL_MSG_BATCH_BEGIN)] + changes.dropLast() + [changes.last!.answered()] + [border(NFNL_MSG_BATCH_BEGIN + 1)]
    }

    /// NFNL_MSG_BATCH_BEGIN, and NFNL_MSG_BATCH_END, which is one more.
    private static func border(_ type: Int32) -> NetlinkMessage {
        NetlinkMessage(Int(type), 0, [UInt8(AF_UNSPEC), UInt8(NFNETLINK_V0), 0, UInt8(NFNL_SUBSYS_NFTABLES)])
    }

    // MARK: - Changes

    /// Asks for the table; outside of transactions.
    public func question() -> NetlinkMessage { message(NFT_MSG_GETTABLE, 0, [attribute(NFTA_TABLE_NAME, name)]).answered() }

    /// Makes the table, if it is not there.
    public func made() -> NetlinkMessage { message(NFT_MSG_NEWTABLE, NLM_F_CREATE, [attribute(NFTA_TABLE_NAME, name)]) }

    /// Removes the table and all in it.
    public func removed() -> NetlinkMessage { message(NFT_MSG_DELTABLE, 0, [attribute(NFTA_TABLE_NAME, name)]) }

    /// A set of keys, or a map of keys to addresses.
    public func set(_ set: String, of keys: Kind, isMap: Bool = false) -> NetlinkMessage {
        let (key, address) = (keys.shape(isV6), Kind.address.shape(isV6))
        var attributes = [
            attribute(NFTA_SET_TABLE, name), attribute(NFTA_SET_NAME, set), attribute(NFTA_SET_FLAGS, isMap ? NFT_SET_MAP.rawValue : 0),
            attribute(NFTA_SET_KEY_TYPE, key.type), attribute(NFTA_SET_KEY_LEN, key.bytes),
            // The kernel wants it, and looks for sets without a name by it.
            attribute(NFTA_SET_ID, 1),
        ]
        if isMap { attributes += [attribute(NFTA_SET_DATA_TYPE, address.type), attribute(NFTA_SET_DATA_LEN, address.bytes)] }
        return message(NFT_MSG_NEWSET, NLM_F_CREATE, attributes)
    }

    /// Adds to a set or map. What a map has for a key is to be removed before, in the same transaction.
    public func adding(_ pairs: [(key: [UInt8], value: [UInt8]?)], to set: String) -> NetlinkMessage {
        let list = pairs.map { element in
            attribute(NFTA_LIST_ELEM, [datum(NFTA_SET_ELEM_KEY, element.key)] + (element.value.map { [datum(NFTA_SET_ELEM_DATA, $0)] } ?? []))
        }
        return message(NFT_MSG_NEWSETELEM, NLM_F_CREATE, elements(of: set, list))
    }

    /// Removes from a set or map.
    public func removing(_ keys: [[UInt8]], from set: String) -> NetlinkMessage {
        message(NFT_MSG_DELSETELEM, 0, elements(of: set, keys.map { attribute(NFTA_LIST_ELEM, [datum(NFTA_SET_ELEM_KEY, $0)]) }))
    }

    /// A chain, named after its hook, that packets pass before the kernel knows of which session they are. What the host itself sends is
    /// given another route if its address changes.
    public func chain(_ hook: Hook) -> NetlinkMessage {
        let priority = UInt32(bitPattern: -300)  // NF_IP_PRI_RAW
        return message(
            NFT_MSG_NEWCHAIN, NLM_F_CREATE,
            [
                attribute(NFTA_CHAIN_TABLE, name), attribute(NFTA_CHAIN_NAME, "\(hook)"),
                attribute(NFTA_CHAIN_HOOK, [attribute(NFTA_HOOK_HOOKNUM, hook.rawValue), attribute(NFTA_HOOK_PRIORITY, priority)]),
                attribute(NFTA_CHAIN_TYPE, hook == .output ? "route" : "filter"),
            ])
    }

    /// A rule at the end of a hook's chain.
    public func rule(_ hook: Hook, _ steps: [Step]) -> NetlinkMessage {
        message(
            NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND,
            [attribute(NFTA_RULE_TABLE, name), attribute(NFTA_RULE_CHAIN, "\(hook)"), attribute(NFTA_RULE_EXPRESSIONS, steps.flatMap(expressions))])
    }

    // MARK: - Rules

    private func expressions(_ step: Step) -> [[UInt8]] {
        let register = NFT_REG_1.rawValue
        switch step {
        case .find(let address, let set):
            return [load(address), expression("lookup", [attribute(NFTA_LOOKUP_SET, set), attribute(NFTA_LOOKUP_SREG, register)])]
        case .leavesByNone(let set):
            let device = [attribute(NFTA_META_DREG, register), attribute(NFTA_META_KEY, NFT_META_OIFNAME.rawValue)]
            let isNone = attribute(NFTA_LOOKUP_FLAGS, UInt32(NFT_LOOKUP_F_INV.rawValue))
            return [
                expression("meta", device), expression("lookup", [attribute(NFTA_LOOKUP_SET, set), attribute(NFTA_LOOKUP_SREG, register), isNone]),
            ]
        case .notrack:
            return [expression("notrack", [])]
        case .translate(let address, let map):
            let found = [attribute(NFTA_LOOKUP_SET, map), attribute(NFTA_LOOKUP_SREG, register), attribute(NFTA_LOOKUP_DREG, register)]
            // IPv4's header has a checksum; those of TCP, UDP and ICMPv6 count the addresses.
            let checksums = [
                attribute(NFTA_PAYLOAD_CSUM_TYPE, (isV6 ? NFT_PAYLOAD_CSUM_NONE : NFT_PAYLOAD_CSUM_INET).rawValue),
                attribute(NFTA_PAYLOAD_CSUM_OFFSET, isV6 ? 0 : 10), attribute(NFTA_PAYLOAD_CSUM_FLAGS, NFT_PAYLOAD_L4CSUM_PSEUDOHDR.rawValue),
            ]
            return [
                load(address), expression("lookup", found),
                expression("payload", [attribute(NFTA_PAYLOAD_SREG, register)] + place(of: address) + checksums),
            ]
        }
    }

    private func load(_ address: Address) -> [UInt8] {
        expression("payload", [attribute(NFTA_PAYLOAD_DREG, NFT_REG_1.rawValue)] + place(of: address))
    }

    /// Where an address is in a packet's header.
    private func place(of address: Address) -> [[UInt8]] {
        let bytes = Kind.address.shape(isV6).bytes
        return [
            attribute(NFTA_PAYLOAD_BASE, NFT_PAYLOAD_NETWORK_HEADER.rawValue),
            attribute(NFTA_PAYLOAD_OFFSET, (isV6 ? 8 : 12) + (address == .destination ? bytes : 0)), attribute(NFTA_PAYLOAD_LEN, bytes),
        ]
    }

    private func expression(_ name: String, _ data: [[UInt8]]) -> [UInt8] {
        attribute(NFTA_LIST_ELEM, [attribute(NFTA_EXPR_NAME, name), attribute(NFTA_EXPR_DATA, data)])
    }

    // MARK: - Bytes

    private func message(_ type: nf_tables_msg_types, _ flags: Int32, _ attributes: [[UInt8]]) -> NetlinkMessage {
        // struct nfgenmsg.
        let header = [UInt8(isV6 ? AF_INET6 : AF_INET), UInt8(NFNETLINK_V0), 0, 0]
        return NetlinkMessage(Int(NFNL_SUBSYS_NFTABLES) << 8 | Int(type.rawValue), flags, header + attributes.joined())
    }

    private func elements(of set: String, _ list: [[UInt8]]) -> [[UInt8]] {
        [attribute(NFTA_SET_ELEM_LIST_TABLE, name), attribute(NFTA_SET_ELEM_LIST_SET, set), attribute(NFTA_SET_ELEM_LIST_ELEMENTS, list)]
    }

    private func datum(_ type: some RawRepresentable<UInt32>, _ bytes: [UInt8]) -> [UInt8] {
        attribute(type, [NetlinkMessage.attribute(Int(NFTA_DATA_VALUE.rawValue), bytes)])
    }

    private func attribute(_ type: some RawRepresentable<UInt32>, _ text: String) -> [UInt8] {
        NetlinkMessage.attribute(Int(type.rawValue), Array(text.utf8) + [0])
    }

    private func attribute(_ type: some RawRepresentable<UInt32>, _ number: UInt32) -> [UInt8] {
        NetlinkMessage.attribute(Int(type.rawValue), NetlinkMessage.native(number.bigEndian))
    }

    private func attribute(_ type: some RawRepresentable<UInt32>, _ nested: [[UInt8]]) -> [UInt8] {
        NetlinkMessage.attribute(Int(type.rawValue) | Int(NLA_F_NESTED), Array(nested.joined()))
    }
}

extension NFTable.Kind {
    /// The key of a set that has devices.
    public static func key(device: String) -> [UInt8] {
        let name = device.utf8.prefix(Int(IFNAMSIZ) - 1)
        return Array(name) + [UInt8](repeating: 0, count: Int(IFNAMSIZ) - name.count)
    }

    /// The number is the one by which `nft` knows how to show it.
    fileprivate func shape(_ isV6: Bool) -> (type: UInt32, bytes: UInt32) {
        switch self {
        case .address: isV6 ? (8, 16) : (7, 4)
        case .device: (41, UInt32(IFNAMSIZ))
        }
    }
}
