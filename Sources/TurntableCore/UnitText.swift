// Units as people read and type them: sizes binary (MiB), rates decimal (Gb/s).

private func rounded(_ value: Double, _ digits: Int) -> String {
    var scale = 1.0
    for _ in 0..<digits { scale *= 10 }
    let whole = (value * scale).rounded() / scale
    if digits == 0 { return String(Int(whole)) }
    var text = String(whole)
    if let dot = text.firstIndex(of: ".") {
        let have = text.distance(from: dot, to: text.endIndex) - 1
        if have < digits { text += String(repeating: "0", count: digits - have) }
        if have > digits { text = String(text[..<text.index(dot, offsetBy: digits + 1)]) }
    }
    return text
}

extension ByteCount: CustomStringConvertible {
    public var description: String {
        let magnitude = Double(value)
        switch value {
        case ..<1024: return "\(value) B"
        case ..<(1 << 20): return rounded(magnitude / 1024, 1) + " KiB"
        case ..<(1 << 30): return rounded(magnitude / 1_048_576, 1) + " MiB"
        default: return rounded(magnitude / 1_073_741_824, 2) + " GiB"
        }
    }

    /// Reads `200M`, `1.5GiB`, `4096`; binary multiples whether or not the `i` is written. Nil if it is no such text.
    public init?(parsing text: String) {
        guard let (number, unit) = splitNumber(text) else { return nil }
        let multiple: Double
        switch unit.lowercased() {
        case "", "b": multiple = 1
        case "k", "kb", "kib": multiple = 1024
        case "m", "mb", "mib": multiple = 1_048_576
        case "g", "gb", "gib": multiple = 1_073_741_824
        case "t", "tb", "tib": multiple = 1_099_511_627_776
        default: return nil
        }
        let bytes = number * multiple
        guard bytes >= 0, bytes < 9e18 else { return nil }
        self.init(Int(bytes))
    }
}

extension BitRate: CustomStringConvertible {
    public var description: String {
        switch bitsPerSecond {
        case ..<1e6: return rounded(bitsPerSecond / 1e3, 1) + " kb/s"
        case ..<1e9: return rounded(bitsPerSecond / 1e6, 1) + " Mb/s"
        default: return rounded(bitsPerSecond / 1e9, 2) + " Gb/s"
        }
    }

    /// Reads `1gbit`, `622mbit`, `9.5Gb/s`; decimal multiples. Nil if it is no such text.
    public init?(parsing text: String) {
        guard let (number, unit) = splitNumber(text), number > 0 else { return nil }
        let multiple: Double
        switch unit.lowercased() {
        case "bit", "b/s": multiple = 1
        case "k", "kbit", "kb/s": multiple = 1e3
        case "m", "mbit", "mb/s": multiple = 1e6
        case "g", "gbit", "gb/s": multiple = 1e9
        default: return nil
        }
        guard number * multiple < 1e15 else { return nil }
        self.init(bitsPerSecond: number * multiple)
    }
}

extension Nanoseconds: CustomStringConvertible {
    public var description: String {
        if self == .forever { return "forever" }
        switch value {
        case ..<1_000_000: return rounded(Double(value) / 1e3, 0) + " µs"
        case ..<1_000_000_000: return rounded(Double(value) / 1e6, 1) + " ms"
        default: return rounded(Double(value) / 1e9, 2) + " s"
        }
    }

    /// Reads `300ms`, `2s`, `87.5ms`, `150us`. Nil if it is no such text.
    public init?(parsing text: String) {
        guard let (number, unit) = splitNumber(text) else { return nil }
        let multiple: Double
        switch unit.lowercased() {
        case "ns": multiple = 1
        case "us", "µs": multiple = 1e3
        case "ms": multiple = 1e6
        case "s": multiple = 1e9
        case "min": multiple = 60e9
        case "h": multiple = 3600e9
        default: return nil
        }
        guard number >= 0, number * multiple < 9e18 else { return nil }
        self.init(Int64(number * multiple))
    }
}

private func splitNumber(_ text: String) -> (Double, String)? {
    let digits = text.prefix { $0.isASCII && ($0.isNumber || $0 == ".") }
    guard let number = Double(digits), number.isFinite else { return nil }
    return (number, text.dropFirst(digits.count).trimmingSpaces)
}

extension Substring {
    fileprivate var trimmingSpaces: String { String(drop { $0 == " " }) }
}
