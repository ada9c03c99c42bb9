/// The commands a running line obeys, one a line: what to do, and to which direction if not to both.
struct LineControl {
    static let help = """
        delay TIME [a-b|b-a]      new one-way delay; frames never overtake
        rate RATE [a-b|b-a]       new line rate
        loss PERCENT% [a-b|b-a]   new random loss
        cut [a-b|b-a]             the line goes dark; what is on it is lost
        restore [a-b|b-a]         the line is lit again
        stats                     counters since the start
        quit                      end as with SIGTERM
        """

    enum Outcome {
        case done
        case statistics
        case quit
    }

    let line: Line

    func obey(_ text: String) throws(LineError) -> Outcome {
        var words = text.split(whereSeparator: \.isWhitespace).map(String.init)
        guard !words.isEmpty else { throw .refused("empty command; \(Self.known)") }
        let verb = words.removeFirst()
        let operandCount = ["delay", "rate", "loss"].contains(verb) ? 1 : 0
        guard words.count >= operandCount else { throw .refused("'\(verb)' needs a value, such as 'delay 50ms'") }
        let selected = try directions(words.dropFirst(operandCount), of: text)
        switch verb {
        case "delay":
            let delay = try LineDelay(parsing: words[0])
            for index in selected { try line.set(delay: delay, direction: index) }
        case "rate":
            let rate = try BitRate(parsing: words[0])
            for index in selected { try line.set(rate: rate, direction: index) }
        case "loss":
            let loss = try LossRatio(parsing: words[0])
            for index in selected { try line.set(loss: loss, direction: index) }
        case "cut", "restore":
            for index in selected { line.directions[index].parameters.set(isCut: verb == "cut") }
        case "stats":
            return .statistics
        case "quit":
            return .quit
        default:
            throw .refused("unknown command '\(verb)'; \(Self.known)")
        }
        return .done
    }

    private static let known = "commands are delay, rate, loss, cut, restore, stats and quit"

    private func directions(_ names: ArraySlice<String>, of text: String) throws(LineError) -> [Int] {
        guard let name = names.first else { return Array(line.directions.indices) }
        guard names.count == 1, let index = line.directions.firstIndex(where: { $0.name == name }) else {
            throw .refused("'\(names.joined(separator: " "))' in '\(text)' is not a direction: a-b, b-a, or nothing for both")
        }
        return [index]
    }
}
