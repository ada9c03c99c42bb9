/// Frames of a domain's memory through which it speaks with xenstore and has its console; 0 is none.
public struct XenRings: Equatable, Sendable {
    public var store: UInt64
    public var console: UInt64
    public init(store: UInt64, console: UInt64) { (self.store, self.console) = (store, console) }
}
