// What of a suspended PVH or HVM domain is neither memory nor known to libxl.
//
//   state   = time stamp counter: mode u32, kHz u32, incarnation u32, elapsed nanoseconds u64
//             | parameters: count u32, then (index u32, value u64) each | context: length u32, bytes
//
// The context is Xen's own (public/arch-x86/hvm/save.h): what its processors and interrupt controllers hold.

internal import CTurntableXen
internal import TurntableCore
internal import WireFormat

struct XenState: Equatable {
    struct Counter: Equatable {
        var mode, kilohertz, incarnation: UInt32
        var elapsedNanoseconds: UInt64
    }
    struct Parameter: Equatable {
        var index: UInt32
        var value: UInt64
    }
    var counter: Counter
    var parameters: [Parameter]
    var context: [UInt8]

    /// Those that mean the same at the target.
    static let movedParameters = (0..<tt_xen_moved_parameters()).map(tt_xen_moved_parameter)

    init(counter: Counter, parameters: [Parameter], context: [UInt8]) {
        (self.counter, self.parameters, self.context) = (counter, parameters, context)
    }

    /// Of a domain that is suspended.
    init(of domain: XenDomain) throws(TurntableError) {
        counter = try domain.timeStampCounter()
        parameters = []
        for index in Self.movedParameters { parameters.append(Parameter(index: index, value: try domain.parameter(index))) }
        context = try domain.context()
    }

    func encoded() -> [UInt8] {
        var writer = MessageWriter()
        writer.append(counter.mode)
        writer.append(counter.kilohertz)
        writer.append(counter.incarnation)
        writer.append(counter.elapsedNanoseconds)
        writer.append(UInt32(parameters.count))
        for parameter in parameters {
            writer.append(parameter.index)
            writer.append(parameter.value)
        }
        writer.append(bytes: context)
        return writer.bytes
    }

    init(decoding bytes: [UInt8]) throws(TurntableError) {
        do throws(WireError) {
            var reader = MessageReader(bytes)
            counter = Counter(
                mode: try reader.read(), kilohertz: try reader.read(), incarnation: try reader.read(), elapsedNanoseconds: try reader.read())
            parameters = []
            for _ in 0..<(try reader.readCount(atMost: Self.movedParameters.count)) {
                parameters.append(Parameter(index: try reader.read(), value: try reader.read()))
            }
            context = try reader.readBytes(atMost: Limits.xenContextBytes)
            try reader.end()
        } catch {
            throw TurntableError(.protocol, "the state of the domain", error.description)
        }
        if let strange = parameters.first(where: { !Self.movedParameters.contains($0.index) }) {
            throw TurntableError(.protocol, "the state of the domain", "parameter \(strange.index) does not travel")
        }
    }

    var rings: XenRings {
        func value(_ index: UInt32) -> UInt64 { parameters.first { $0.index == index }?.value ?? 0 }
        return XenRings(store: value(tt_xen_store_frame), console: value(tt_xen_console_frame))
    }

    /// Gives a new domain this state, all memory being in place, but for its ``rings``.
    func apply(to domain: XenDomain) throws(TurntableError) {
        try domain.set(counter)
        for parameter in parameters where parameter.value != 0 && ![tt_xen_store_frame, tt_xen_console_frame].contains(parameter.index) {
            if [tt_xen_request_frame, tt_xen_buffered_request_frame].contains(parameter.index) { try domain.clear(frame: parameter.value) }
            try domain.set(parameter: parameter.index, to: parameter.value)
        }
        try domain.set(context: context)
    }
}
