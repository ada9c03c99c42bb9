internal import TurntableCore
internal import TurntableLinux

/// How to learn what a QEMU wrote, best first.
public enum DirtyLogMethod: String, CaseIterable, Sendable {
    /// Linux 6.7: the machine runs on meanwhile.
    case pagemapScan = "pagemap-scan"
    /// Before it, with CONFIG_MEM_SOFT_DIRTY: see ``SoftDirtyLog``.
    case softDirty = "soft-dirty"

    /// QEMU's mappings must be registered from inside, by the preload.
    var needsRegistration: Bool { self == .pagemapScan }

    /// Why this kernel has it not, or nil if it has.
    static func missingSupport(_ method: DirtyLogMethod) -> TurntableError? {
        switch method {
        case .pagemapScan: PagemapScanner.missingSupport()
        case .softDirty: SoftDirtyScanner.missingSupport()
        }
    }

    /// The one that is wanted, else the best there is. Throws why there is none, of several the best one's reason.
    static func choose(
        _ wanted: DirtyLogMethod? = nil, missing: (DirtyLogMethod) -> TurntableError? = missingSupport
    ) throws(TurntableError) -> DirtyLogMethod {
        var reason: TurntableError?
        for method in wanted.map({ [$0] }) ?? allCases {
            guard let why = missing(method) else { return method }
            reason = reason ?? why
        }
        throw reason!
    }

    /// Refuses memory that the method cannot see into.
    func check(hugePagesIn region: String?) throws(TurntableError) {
        guard self == .softDirty, let region else { return }
        throw TurntableError(
            .unsupported, "keeping a dirty log of region \(region) with soft-dirty bits", "huge pages have none",
            remedy: "leave hugetlb=on away, or run Linux 6.7 or later")
    }
}
