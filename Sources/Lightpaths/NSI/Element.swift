// XML as the NSI messages need it: elements with namespaces, attributes, and either text or children. Foundation parses; entities,
// depth and number of elements are bounded, for what comes is a peer's.

public import Foundation
internal import FoundationXML
public import TurntableCore

public struct Element: Sendable, Equatable {
    public var name: String
    /// Empty: unqualified, as all children are in these messages.
    public var namespace: String
    public var attributes: [String: String]
    public var text: String
    public var children: [Element]

    public init(_ name: String, in namespace: String = "", attributes: [String: String] = [:], _ children: [Element]) {
        self.init(name, in: namespace, attributes, text: "", children)
    }

    public init(_ name: String, _ text: String) { self.init(name, in: "", [:], text: text, []) }

    private init(_ name: String, in namespace: String, _ attributes: [String: String], text: String, _ children: [Element]) {
        self.name = name
        self.namespace = namespace
        self.attributes = attributes
        self.text = text
        self.children = children
    }

    /// The first child of that name; empty if there is none.
    public subscript(name: String) -> Element { children.first { $0.name == name } ?? Element(name, "") }
    public func all(_ name: String) -> [Element] { children.filter { $0.name == name } }
    /// Its text without the spaces around it; nil if that is empty.
    public var value: String? {
        let trimmed = text.trimmingCharacters(in: .whitespacesAndNewlines)
        return trimmed.isEmpty ? nil : trimmed
    }

    // MARK: - Writing

    public var document: Data { Data((#"<?xml version="1.0" encoding="UTF-8"?>"# + xml).utf8) }

    private var xml: String {
        let named = namespace.isEmpty ? name : "n:\(name)"
        let declared = namespace.isEmpty ? "" : #" xmlns:n="\#(Self.escaped(namespace))""#
        let more = attributes.sorted { $0.key < $1.key }.map { #" \#($0.key)="\#(Self.escaped($0.value))""# }.joined()
        return "<\(named)\(declared)\(more)>\(Self.escaped(text))\(children.map(\.xml).joined())</\(named)>"
    }

    private static func escaped(_ text: String) -> String {
        text.replacing("&", with: "&amp;").replacing("<", with: "&lt;").replacing(">", with: "&gt;").replacing("\"", with: "&quot;")
    }

    // MARK: - Reading

    public static func parse(_ data: Data) throws(TurntableError) -> Element {
        let what = "reading an XML message"
        guard data.count <= Limits.nsiMessageBytes else {
            throw TurntableError(.protocol, what, "it has \(ByteCount(data.count)), and may have \(ByteCount(Limits.nsiMessageBytes))")
        }
        // A message has no declarations of its own: entities and external parts are never looked at.
        // Nor is it in an encoding in which that would not be seen.
        guard data.range(of: Data("<!DOCTYPE".utf8)) == nil, !data.contains(0) else {
            throw TurntableError(.protocol, what, "it declares a document type, or is not in UTF-8")
        }
        let reader = Reader()
        let parser = XMLParser(data: data)
        parser.shouldProcessNamespaces = true
        parser.shouldResolveExternalEntities = false
        parser.delegate = reader
        guard parser.parse(), reader.fault == nil, let root = reader.root else {
            throw TurntableError(.protocol, what, reader.fault ?? parser.parserError.map { "\($0), line \(parser.lineNumber)" } ?? "it has no element")
        }
        return root
    }

    private final class Reader: NSObject, XMLParserDelegate {
        var open: [Element] = []
        var root: Element?
        var count = 0
        var fault: String?

        func parser(
            _ parser: XMLParser, didStartElement name: String, namespaceURI: String?, qualifiedName: String?, attributes: [String: String]
        ) {
            count += 1
            if open.count >= Limits.nsiDepth || count > Limits.nsiElements {
                fault = "it has over \(Limits.nsiElements) elements, or is nested over \(Limits.nsiDepth) deep"
                return parser.abortParsing()
            }
            let local = name.split(separator: ":").last.map(String.init) ?? name
            open.append(Element(local, in: namespaceURI ?? "", attributes: attributes, []))
        }

        func parser(_ parser: XMLParser, foundCharacters string: String) {
            if !open.isEmpty { open[open.count - 1].text += string }
        }

        func parser(_ parser: XMLParser, didEndElement name: String, namespaceURI: String?, qualifiedName: String?) {
            guard var element = open.popLast() else { return }
            if !element.children.isEmpty { element.text = "" }
            if open.isEmpty { root = element } else { open[open.count - 1].children.append(element) }
        }
    }
}
