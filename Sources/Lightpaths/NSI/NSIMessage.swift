// The NSI Connection Service 2 (OGF GFD.212) as far as both sides here speak it: SOAP 1.1, one operation a message.
//
//   requester ─▶ provider   reserve, reserveCommit, reserveAbort, provision, release, terminate   answered at once by an acknowledgment
//                           (reserve: by reserveResponse), and later, or before that answer, by a message to `replyTo`
//                           querySummarySync                                                      answered at once by what is asked
//   provider ─▶ requester   …Confirmed, …Failed, error                                            with the request's correlation id
//                           dataPlaneStateChange, reserveTimeout, errorEvent                      when something happens
//
// The root of a body is qualified, what is in it is not. What cannot be done is a fault, with HTTP status 500, or a …Failed.

public import Foundation
public import TurntableCore

public enum NSI {
    private static let base = "http://schemas.ogf.org/nsi/2013/12/"
    public static let types = base + "connection/types"
    public static let headers = base + "framework/headers"
    public static let framework = base + "framework/types"
    public static let pointToPoint = base + "services/point2point"
    public static let actions = base + "connection/service/"
    static let envelope = "http://schemas.xmlsoap.org/soap/envelope/"
    public static let providerProtocol = "application/vnd.ogf.nsi.cs.v2.provider+soap"
    public static let requesterProtocol = "application/vnd.ogf.nsi.cs.v2.requester+soap"
    public static let serviceType = "http://services.ogf.org/nsi/2013/07/descriptions/EVTS.A-GOLE"

    /// Times as XML Schema writes them, in UTC.
    public static func text(_ time: Date) -> String { time.formatted(.iso8601) }

    public static func time(_ text: String) -> Date? {
        // Fractions of a second are allowed, and so is any offset.
        (try? Date(text, strategy: Date.ISO8601FormatStyle(includingFractionalSeconds: true))) ?? (try? Date(text, strategy: .iso8601))
    }
}

public struct NSIMessage: Sendable, Equatable {
    public var correlationID: String
    public var requester: String
    public var provider: String
    public var replyTo: String?
    /// The root of the body: its name is the operation.
    public var body: Element

    public init(correlationID: String, requester: String, provider: String, replyTo: String? = nil, body: Element) {
        self.correlationID = correlationID
        self.requester = requester
        self.provider = provider
        self.replyTo = replyTo
        self.body = body
    }

    public static func newCorrelation() -> String { "urn:uuid:\(UUID().uuidString.lowercased())" }

    public var operation: String { body.name }

    public func envelope(for role: String) -> Data {
        var header = [
            Element("protocolVersion", role), Element("correlationId", correlationID), Element("requesterNSA", requester),
            Element("providerNSA", provider),
        ]
        if let replyTo { header.append(Element("replyTo", replyTo)) }
        return Self.envelope(body, [Element("nsiHeader", in: NSI.headers, header)])
    }

    private static func envelope(_ body: Element, _ headers: [Element]) -> Data {
        Element("Envelope", in: NSI.envelope, [Element("Header", in: NSI.envelope, headers), Element("Body", in: NSI.envelope, [body])]).document
    }

    /// A message, or the fault that is in its place.
    public static func parse(_ data: Data) throws(TurntableError) -> NSIMessage {
        let root = try Element.parse(data)
        let what = "reading an NSI message"
        guard root.name == "Envelope", root.namespace == NSI.envelope, let body = root["Body"].children.first else {
            throw TurntableError(.protocol, what, "it is no SOAP envelope with a body")
        }
        if body.name == "Fault" {
            let detail = body["detail"]["serviceException"]
            throw (NSIException(detail) ?? NSIException(id: "", text: body["faultstring"].value ?? "a fault without a text")).error("an NSI request")
        }
        let header = root["Header"]["nsiHeader"]
        guard header.namespace == NSI.headers, let correlation = header["correlationId"].value else {
            throw TurntableError(.protocol, what, "\(body.name.prefix(80)) has no NSI header with a correlation id")
        }
        return NSIMessage(
            correlationID: correlation, requester: header["requesterNSA"].value ?? "", provider: header["providerNSA"].value ?? "",
            replyTo: header["replyTo"].value, body: body)
    }

    public static func fault(_ exception: NSIException, _ provider: String) -> Data {
        let fault = Element(
            "Fault", in: NSI.envelope,
            [
                Element("faultcode", "Server"), Element("faultstring", exception.text),
                Element("detail", [exception.element(provider, in: NSI.framework)]),
            ])
        return envelope(fault, [])
    }
}

/// Why something cannot be done, in NSI's words.
public struct NSIException: Error, Sendable, Equatable {
    /// Five digits: 001 the message, 002 the state, 003 who asks, 004 and 007 the network, 005 the provider itself, 006 its resources.
    public var id: String
    public var text: String
    public var connectionID: String?

    public init(id: String, text: String, connectionID: String? = nil) {
        self.id = id
        self.text = text
        self.connectionID = connectionID
    }

    public static let payload = "00100"
    public static let missingParameter = "00101"
    public static let unsupportedParameter = "00102"
    public static let notSupported = "00103"
    public static let invalidTransition = "00201"
    public static let noSuchConnection = "00203"
    public static let unauthorized = "00302"
    public static let internalError = "00500"
    public static let unknownSTP = "00701"
    public static let capacityUnavailable = "00705"

    public init?(_ element: Element) {
        guard let id = element["errorId"].value else { return nil }
        self.init(id: id, text: element["text"].value ?? "", connectionID: element["connectionId"].value)
        // What went wrong further on says more.
        if let child = element.all("childException").first.flatMap(NSIException.init) { text += ": \(child.id) \(child.text)" }
    }

    public func element(_ provider: String, in namespace: String = "") -> Element {
        var children = [Element("nsaId", provider)]
        if let connectionID { children.append(Element("connectionId", connectionID)) }
        children += [Element("errorId", id), Element("text", text)]
        return Element("serviceException", in: namespace, children)
    }

    public func error(_ what: String) -> TurntableError {
        let kind: TurntableError.Kind =
            switch id {
            case Self.unsupportedParameter, Self.notSupported: .unsupported
            case _ where id.hasPrefix("001"): .protocol
            // Its own trouble, or none that it can name: it may be over soon.
            case _ where id.hasPrefix("005"), "": .line
            default: .refused
            }
        return TurntableError(kind, what, id.isEmpty ? text : "\(id): \(text)")
    }
}

/// A connection as querySummary shows it.
public struct NSIConnection: Sendable, Equatable {
    public var id: String
    public var globalReservationID: String?
    public var reservation: String
    public var provision: String
    public var lifecycle: String
    public var isActive: Bool
    public var isConsistent: Bool
    public var version: Int
    public var megabitsPerSecond: Double
    public var until: Date?

    /// From a `reservation` of a querySummary's confirmation.
    init?(_ element: Element) {
        guard let id = element["connectionId"].value else { return nil }
        let states = element["connectionStates"]
        let criteria = element.all("criteria").last ?? Element("criteria", "")
        self.id = id
        globalReservationID = element["globalReservationId"].value
        reservation = states["reservationState"].value ?? ""
        provision = states["provisionState"].value ?? ""
        lifecycle = states["lifecycleState"].value ?? ""
        let plane = states["dataPlaneStatus"]
        isActive = plane["active"].value == "true"
        isConsistent = plane["versionConsistent"].value == "true"
        version = criteria.attributes["version"].flatMap { Int($0) } ?? 0
        megabitsPerSecond = criteria["p2ps"]["capacity"].value.flatMap { Double($0) } ?? 0
        until = criteria["schedule"]["endTime"].value.flatMap { NSI.time($0) }
    }

    public static func all(in message: NSIMessage) -> [NSIConnection] { message.body.all("reservation").compactMap { NSIConnection($0) } }

    public var isOver: Bool { lifecycle != "Created" }
    /// All of it passes traffic, as its last version says.
    public var carries: Bool { isActive && isConsistent }
}

/// What is asked of a connection.
public struct NSICriteria: Sendable, Equatable {
    public var version: Int
    public var from: Date?
    public var until: Date?
    public var megabitsPerSecond: Int?
    /// None: of a change, which is on the same way.
    public var ends: [String]

    public init(version: Int, from: Date? = nil, until: Date?, megabitsPerSecond: Int?, ends: [String]) {
        self.version = version
        self.from = from
        self.until = until
        self.megabitsPerSecond = megabitsPerSecond
        self.ends = ends
    }

    public init?(_ element: Element) {
        guard let version = (element.attributes["version"] ?? "0").isEmpty ? 0 : Int(element.attributes["version"] ?? "0") else { return nil }
        let service = element["p2ps"]
        self.version = version
        from = element["schedule"]["startTime"].value.flatMap { NSI.time($0) }
        until = element["schedule"]["endTime"].value.flatMap { NSI.time($0) }
        megabitsPerSecond = (service["capacity"].value ?? element["capacity"].value).flatMap { Int($0) }
        ends = [service["sourceSTP"].value, service["destSTP"].value].compactMap { $0 }
    }

    public var element: Element {
        var schedule: [Element] = []
        if let from { schedule.append(Element("startTime", NSI.text(from))) }
        if let until { schedule.append(Element("endTime", NSI.text(until))) }
        var children = [Element("schedule", schedule), Element("serviceType", NSI.serviceType)]
        if let megabitsPerSecond {
            var capacity = Element("capacity", "\(megabitsPerSecond)")
            if ends.isEmpty {
                capacity.namespace = NSI.pointToPoint
                children.append(capacity)
            } else {
                children.append(
                    Element(
                        "p2ps", in: NSI.pointToPoint,
                        [
                            capacity, Element("directionality", "Bidirectional"), Element("symmetricPath", "true"), Element("sourceSTP", ends[0]),
                            Element("destSTP", ends[1]),
                        ]))
            }
        }
        return Element("criteria", attributes: ["version": "\(version)"], children)
    }
}
