internal import TurntableCore

extension SeededGenerator {
    /// True once in `number` times.
    mutating func once(in number: UInt64) -> Bool { next() % number == 0 }
    mutating func pick(_ range: Range<Int>) -> Int { range.lowerBound + Int(next() % UInt64(range.count)) }
    mutating func pick<Value>(_ values: [Value]) -> Value { values[pick(0..<values.count)] }
}
