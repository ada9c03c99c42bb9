/// One JSON object on one line, keys in the order they were added. Enough for events and statistics, without Foundation.
struct JSONText {
    private var members: [String] = []

    var text: String { "{" + members.joined(separator: ",") + "}" }

    mutating func add(_ key: String, _ value: String) { members.append("\(Self.quoted(key)):\(Self.quoted(value))") }
    mutating func add(_ key: String, _ value: UInt64) { members.append("\(Self.quoted(key)):\(value)") }
    mutating func add(_ key: String, _ value: Bool) { members.append("\(Self.quoted(key)):\(value)") }
    mutating func add(_ key: String, _ value: Double, digits: Int) {
        members.append("\(Self.quoted(key)):\(Quantity.fixed(value, digits: digits))")
    }
    mutating func add(_ key: String, _ value: JSONText) { members.append("\(Self.quoted(key)):\(value.text)") }

    private static func quoted(_ text: String) -> String {
        var quoted = "\""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\"", "\\": quoted += "\\" + String(scalar)
            case _ where scalar.value < 0x20:
                let hex = String(scalar.value, radix: 16)
                quoted += "\\u" + String(repeating: "0", count: 4 - hex.count) + hex
            default: quoted.unicodeScalars.append(scalar)
            }
        }
        return quoted + "\""
    }
}
