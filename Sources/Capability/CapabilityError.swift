public import TurntableCore

/// Why a token is refused. Each is one thing that is wrong with it, or with the use that is made of it.
public enum CapabilityError: Error, Equatable, Sendable {
    case missing
    case malformed(String)
    case chainTooLong(links: Int)
    /// No key of that domain is trusted here.
    case foreignDomain(String)
    case badSignature(link: Int)
    /// The link before names nobody who may narrow it.
    case notDelegated(link: Int)
    case widened(claim: String, link: Int)
    /// Its last link is to be narrowed first: it names a delegate, or no holder. So nobody gains by leaving the last link out.
    case unfinished
    case notYet(validFrom: Int, now: Int)
    case expired(validUntil: Int, now: Int)
    case wrongMachine(String, wanted: String)
    case wrongEpoch(Epoch, wanted: Epoch)
    case wrongSource(String, wanted: String)
    case wrongTarget(String, wanted: String)
    case wrongPath(String, wanted: String)
    /// It is somebody else's: whoever shows it has another key than it names.
    case wrongHolder
    case revoked(TokenID)
    /// Its number was used already, for something else.
    case replayed(TokenID, usedFor: String)
    /// What is remembered of tokens here cannot be read or written.
    case ledger(TurntableError)

    public var why: String {
        switch self {
        case .missing: "none is shown"
        case .malformed(let why): "it is no token: \(why)"
        case .chainTooLong(let links): "it is a chain of \(links) links, the most is \(Limits.tokenLinks)"
        case .foreignDomain(let name): "it is of the domain \(name), which is not trusted here"
        case .badSignature(let link): "the signature of link \(link) is not that of its signer"
        case .notDelegated(let link): "link \(link - 1) names nobody who may narrow it, and link \(link) follows"
        case .widened(let claim, let link): "link \(link) widens what the one before grants: its \(claim)"
        case .unfinished: "its last link is for a delegate to narrow, or for no holder"
        case .notYet(let from, let now): "it is valid from \(from), and it is \(now) (Unix seconds)"
        case .expired(let until, let now): "it was valid until \(until), and it is \(now) (Unix seconds)"
        case .wrongMachine(let machine, let wanted): "it is for the machine \(machine), not for \(wanted)"
        case .wrongEpoch(let epoch, let wanted): "it is for epoch \(epoch.value), not for \(wanted.value)"
        case .wrongSource(let host, let wanted): "it is for a machine from \(host), not from \(wanted)"
        case .wrongTarget(let host, let wanted): "it is for the target \(host), not for \(wanted)"
        case .wrongPath(let path, let wanted): "it is for the line \(path), not for \(wanted)"
        case .wrongHolder: "it is bound to another host's key than that of whoever shows it"
        case .revoked(let id): "\(id) was revoked"
        case .replayed(let id, let use): "\(id) was used already, for \(use)"
        case .ledger(let error): error.description
        }
    }

    /// As an operator reads it.
    public func error(_ what: String) -> TurntableError {
        let remedy =
            switch self {
            case .foreignDomain: "trust it with --trust-domain, or ask a domain that is"
            case .notYet: "check both clocks, or wait"
            case .ledger(let error): error.remedy
            default: "have one issued for this migration"
            }
        return TurntableError(.refused, what, "the token: \(why)", remedy: remedy)
    }
}
