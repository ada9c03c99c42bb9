// What a token says: CWT claims (RFC 8392) with a confirmation of the holder's key (RFC 8747), as a map in deterministic CBOR.
//
//    1 iss  text   the domain that granted it
//    2 sub  text   the machine
//    3 aud  text   the target host, as its certificate names it
//    4 exp  uint   Unix seconds: not after
//    5 nbf  uint   not before
//    7 cti  bytes  16 random ones: the token's number, used and revoked by it
//    8 cnf  map    {3: 32 bytes}: SHA-256 of the SubjectPublicKeyInfo of the holder's certificate
//   -65537  uint   the epoch under which the target would run the machine
//   -65538  text   the source host
//   -65539  text   the path that it may take
//   -65540  uint   bytes that may be moved under it
//   -65541  bytes  32: the Ed25519 key that may sign the next link
//
// Path, budget, holder and delegate may be absent: then they are not limited. A claim of another name is refused, for it may have
// been meant as a limit.

public import TurntableCore

/// A token's number.
public struct TokenID: Hashable, Sendable, CustomStringConvertible {
    public static let bytes = 16
    public let value: [UInt8]

    init?(_ value: [UInt8]) {
        guard value.count == Self.bytes else { return nil }
        self.value = value
    }

    public static func random() -> TokenID { TokenID(unchecked: (0..<bytes).map { _ in .random(in: .min ... .max) }) }
    private init(unchecked value: [UInt8]) { self.value = value }

    public var hexadecimal: String { value.map { String($0 >> 4, radix: 16) + String($0 & 15, radix: 16) }.joined() }
    public var description: String { "token \(hexadecimal.prefix(8))" }
}

public struct Claims: Equatable, Sendable {
    public var issuer: String
    public var machine: String
    public var epoch: Epoch
    public var source: String
    public var target: String
    public var path: String?
    /// Unix seconds.
    public var notBefore: Int
    public var notAfter: Int
    public var byteBudget: Int?
    /// SHA-256 of the SubjectPublicKeyInfo of the certificate of whoever may show it.
    public var holder: [UInt8]?
    public var id: TokenID
    /// Who may sign the next link.
    public var delegate: [UInt8]?

    public init(
        issuer: String, machine: String, epoch: Epoch, source: String, target: String, path: String? = nil, notBefore: Int, notAfter: Int,
        byteBudget: Int? = nil, holder: [UInt8]? = nil, id: TokenID = .random(), delegate: [UInt8]? = nil
    ) {
        self.issuer = issuer
        self.machine = machine
        self.epoch = epoch
        self.source = source
        self.target = target
        self.path = path
        self.notBefore = notBefore
        self.notAfter = notAfter
        self.byteBudget = byteBudget
        self.holder = holder
        self.id = id
        self.delegate = delegate
    }

    // MARK: - Narrowing

    /// Throws unless this grants no more than `wider`, which is the link before it.
    func checkNarrower(than wider: Claims, link: Int) throws(CapabilityError) {
        func keep(_ isKept: Bool, _ claim: String) throws(CapabilityError) {
            if !isKept { throw .widened(claim: claim, link: link) }
        }
        func fits<Value: Equatable>(_ new: Value?, _ old: Value?) -> Bool { old == nil || new == old }
        try keep(issuer == wider.issuer, "issuer")
        try keep(id == wider.id, "id")
        try keep(machine == wider.machine, "machine")
        try keep(epoch == wider.epoch, "epoch")
        try keep(source == wider.source, "source")
        try keep(target == wider.target, "target")
        try keep(fits(path, wider.path), "path")
        try keep(notBefore >= wider.notBefore && notAfter <= wider.notAfter, "window")
        try keep(wider.byteBudget.map { most in byteBudget.map { $0 <= most } ?? false } ?? true, "byte budget")
        try keep(fits(holder, wider.holder), "holder")
    }

    // MARK: - Use

    /// What somebody wants to do under a token. What is nil is not known where it is checked, and is checked elsewhere.
    public struct Use: Sendable {
        public var machine: String
        public var epoch: Epoch?
        public var source: String
        public var target: String
        public var holder: [UInt8]?
        public init(machine: String, epoch: Epoch? = nil, source: String, target: String, holder: [UInt8]? = nil) {
            self.machine = machine
            self.epoch = epoch
            self.source = source
            self.target = target
            self.holder = holder
        }
    }

    /// - Parameter now: Unix seconds.
    func check(_ use: Use, at now: Int) throws(CapabilityError) {
        try checkWindow(at: now)
        guard machine == use.machine else { throw .wrongMachine(machine, wanted: use.machine) }
        guard use.epoch == nil || use.epoch == epoch else { throw .wrongEpoch(epoch, wanted: use.epoch ?? epoch) }
        guard source == use.source.lowercased() else { throw .wrongSource(source, wanted: use.source) }
        guard target == use.target.lowercased() else { throw .wrongTarget(target, wanted: use.target) }
        guard use.holder == nil || use.holder == holder else { throw .wrongHolder }
    }

    func checkWindow(at now: Int) throws(CapabilityError) {
        guard now >= notBefore else { throw .notYet(validFrom: notBefore, now: now) }
        guard now <= notAfter else { throw .expired(validUntil: notAfter, now: now) }
    }

    // MARK: - CBOR

    private enum Key {
        static let issuer = CBOR.unsigned(1), machine = CBOR.unsigned(2), target = CBOR.unsigned(3), notAfter = CBOR.unsigned(4),
            notBefore = CBOR.unsigned(5), id = CBOR.unsigned(7), confirmation = CBOR.unsigned(8), epoch = own(1), source = own(2), path = own(3),
            byteBudget = own(4), delegate = own(5)
        static let keyIdentifier = CBOR.unsigned(3)
        /// In the range for private use (RFC 8392, 9.1).
        private static func own(_ number: UInt64) -> CBOR { .negative(65535 + number) }
    }

    var encoded: CBOR {
        var pairs: [CBOR.Pair] = []
        func add(_ key: CBOR, _ value: CBOR?) { if let value { pairs.append(.init(key: key, value: value)) } }
        add(Key.issuer, .text(issuer))
        add(Key.machine, .text(machine))
        add(Key.target, .text(target))
        add(Key.notAfter, .unsigned(UInt64(notAfter)))
        add(Key.notBefore, .unsigned(UInt64(notBefore)))
        add(Key.id, .bytes(id.value))
        add(Key.confirmation, holder.map { .map([.init(key: Key.keyIdentifier, value: .bytes($0))]) })
        add(Key.epoch, .unsigned(epoch.value))
        add(Key.source, .text(source))
        add(Key.path, path.map { .text($0) })
        add(Key.byteBudget, byteBudget.map { .unsigned(UInt64($0)) })
        add(Key.delegate, delegate.map { .bytes($0) })
        return .map(pairs)
    }

    init(decoding item: CBOR) throws(CapabilityError) {
        guard case .map(let pairs) = item else { throw .malformed("its claims are no map") }
        var fields = ClaimFields(pairs)
        issuer = try fields.text(Key.issuer, "issuer")
        machine = try fields.text(Key.machine, "machine")
        target = try fields.text(Key.target, "target")
        notAfter = try fields.number(Key.notAfter, "window")
        notBefore = try fields.number(Key.notBefore, "window")
        guard let number = TokenID(try fields.bytes(Key.id, "id", TokenID.bytes)) else { throw .malformed("its id has another length") }
        id = number
        holder = nil
        if let confirmation = fields.take(Key.confirmation) {
            guard case .map(let inner) = confirmation, inner.count == 1 else { throw .malformed("its confirmation is none of a key's digest") }
            var members = ClaimFields(inner)
            holder = try members.bytes(Key.keyIdentifier, "holder", 32)
        }
        guard case .unsigned(let value)? = fields.take(Key.epoch) else { throw .malformed("its epoch is missing or no number") }
        epoch = Epoch(value)
        source = try fields.text(Key.source, "source")
        path = fields.has(Key.path) ? try fields.text(Key.path, "path") : nil
        byteBudget = fields.has(Key.byteBudget) ? try fields.number(Key.byteBudget, "byte budget") : nil
        delegate = fields.has(Key.delegate) ? try fields.bytes(Key.delegate, "delegate", 32) : nil
        guard fields.isEmpty else { throw .malformed("it has a claim that is not known here") }
    }
}

/// The members of a map, each taken once.
private struct ClaimFields {
    private var pairs: [CBOR.Pair]
    init(_ pairs: [CBOR.Pair]) { self.pairs = pairs }

    var isEmpty: Bool { pairs.isEmpty }
    func has(_ key: CBOR) -> Bool { pairs.contains { $0.key == key } }

    mutating func take(_ key: CBOR) -> CBOR? {
        guard let index = pairs.firstIndex(where: { $0.key == key }) else { return nil }
        return pairs.remove(at: index).value
    }

    /// Visible ASCII, so that names are equal only if their bytes are.
    mutating func text(_ key: CBOR, _ name: String) throws(CapabilityError) -> String {
        guard case .text(let text)? = take(key), (1...Limits.nameBytes).contains(text.utf8.count), text.utf8.allSatisfy({ (0x21...0x7e).contains($0) }) else {
            throw .malformed("its \(name) is missing, or is not 1 to \(Limits.nameBytes) visible characters")
        }
        return text
    }

    /// Up to 2^53, which every reader of such numbers keeps apart.
    mutating func number(_ key: CBOR, _ name: String) throws(CapabilityError) -> Int {
        guard case .unsigned(let value)? = take(key), value <= 1 << 53 else { throw .malformed("its \(name) is missing, or no number up to 2^53") }
        return Int(value)
    }

    mutating func bytes(_ key: CBOR, _ name: String, _ count: Int) throws(CapabilityError) -> [UInt8] {
        guard case .bytes(let bytes)? = take(key), bytes.count == count else { throw .malformed("its \(name) is missing, or has not \(count) bytes") }
        return bytes
    }
}
