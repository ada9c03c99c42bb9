/// The quantities of a line as people write them. Rates are decimal, sizes binary.
struct BitRate: CustomStringConvertible {
    let bitsPerSecond: UInt64

    init(bitsPerSecond: UInt64) { self.bitsPerSecond = bitsPerSecond }

    init(parsing text: String) throws(LineError) {
        let value = try Quantity.parse(text, "rate", ["kbit": 1e3, "mbit": 1e6, "gbit": 1e9], example: "1gbit")
        let limits = LineLimits.minimumRateBitsPerSecond...LineLimits.maximumRateBitsPerSecond
        guard limits.contains(value) else {
            throw .refused(
                "rate '\(text)' is outside \(BitRate(bitsPerSecond: limits.lowerBound))…\(BitRate(bitsPerSecond: limits.upperBound))")
        }
        bitsPerSecond = value
    }

    var femtosecondsPerByte: UInt64 { 8_000_000_000_000_000 / bitsPerSecond }

    /// Bytes the line carries in a time, rounded up.
    func bytes(inNanoseconds nanoseconds: UInt64) -> UInt64 {
        UInt64((UInt128(bitsPerSecond) * UInt128(nanoseconds) + 7_999_999_999) / 8_000_000_000)
    }

    var description: String { Quantity.describe(Double(bitsPerSecond), [("gbit", 1e9), ("mbit", 1e6), ("kbit", 1e3)]) }
}

struct LineDelay: CustomStringConvertible {
    let nanoseconds: UInt64

    init(nanoseconds: UInt64) { self.nanoseconds = nanoseconds }

    init(parsing text: String) throws(LineError) {
        nanoseconds = try Quantity.parse(text, "delay", ["us": 1e3, "ms": 1e6, "s": 1e9], example: "87.5ms")
        guard nanoseconds <= LineLimits.maximumDelayNanoseconds else {
            throw .refused("delay '\(text)' is more than \(LineDelay(nanoseconds: LineLimits.maximumDelayNanoseconds))")
        }
    }

    var description: String { Quantity.describe(Double(nanoseconds), [("s", 1e9), ("ms", 1e6), ("us", 1e3)]) }
}

/// The share of frames lost at random, each by itself.
struct LossRatio: CustomStringConvertible {
    let percent: Double

    static let none = LossRatio(percent: 0)

    private init(percent: Double) { self.percent = percent }

    init(parsing text: String) throws(LineError) {
        guard text.hasSuffix("%"), let percent = Double(text.dropLast()), (0...100).contains(percent) else {
            throw .refused("loss '\(text)' is not a percentage of 0 to 100, such as 0.001%")
        }
        self.percent = percent
    }

    /// A frame is lost when 63 random bits are below this.
    var threshold: UInt64 { UInt64(percent / 100 * 0x1p63) }

    var description: String { Quantity.trimmed(percent, digits: 9) + "%" }
}

struct ByteSize: CustomStringConvertible {
    let bytes: UInt64

    init(bytes: UInt64) { self.bytes = bytes }

    init(parsing text: String) throws(LineError) {
        bytes = try Quantity.parse(text, "size", ["KiB": 0x1p10, "MiB": 0x1p20, "GiB": 0x1p30], example: "32MiB")
    }

    var description: String { Quantity.describe(Double(bytes), [("GiB", 0x1p30), ("MiB", 0x1p20), ("KiB", 0x1p10)]) }
}

enum Quantity {
    static func parse(_ text: String, _ what: String, _ units: [String: Double], example: String) throws(LineError) -> UInt64 {
        let digits = text.prefix { $0.isASCII && ($0.isNumber || $0 == ".") }
        guard let number = Double(digits), let scale = units[String(text.dropFirst(digits.count))], number * scale < 0x1p62 else {
            let suffixes = units.sorted { $0.value < $1.value }.map(\.key).joined(separator: ", ")
            throw .refused("\(what) '\(text)' is not a number with one of \(suffixes); write for example \(example)")
        }
        return UInt64((number * scale).rounded())
    }

    static func describe(_ value: Double, _ units: [(suffix: String, scale: Double)]) -> String {
        let unit = units.first { value >= $0.scale } ?? units[units.count - 1]
        return trimmed(value / unit.scale, digits: 3) + unit.suffix
    }

    /// 87.5 and not 87.500.
    static func trimmed(_ value: Double, digits: Int) -> String {
        var text = fixed(value, digits: digits)
        while text.hasSuffix("0") { text.removeLast() }
        if text.hasSuffix(".") { text.removeLast() }
        return text
    }

    /// A non-negative value with `digits` (at least one) decimals.
    static func fixed(_ value: Double, digits: Int) -> String {
        let scale = (0..<digits).reduce(1) { scale, _ in scale * 10 }
        let scaled = Int((value * Double(scale)).rounded())
        let fraction = String(scaled % scale)
        return "\(scaled / scale)." + String(repeating: "0", count: digits - fraction.count) + fraction
    }
}
