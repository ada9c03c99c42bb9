// turntable-lvm-helper: runs commands of LVM's library for another process, one after another. LVM is not for threads and locks
// all memory of its process, so it gets one of its own. It ends when its input does, and never in the middle of a command.
//
// A request is a line "NUMBER VERB WORD…"; the answer is lines "NUMBER = TEXT", then "NUMBER ok" or "NUMBER failed TEXT".
//
//   create GROUP ORIGIN NAME BYTES CHUNKBYTES TAG…   a read-only snapshot with the tag turntable and others; not larger than it could ever need
//   create-thin GROUP ORIGIN NAME TAG…               the same of a thin volume
//   extend GROUP NAME BYTES                          a snapshot to this size
//   retag GROUP NAME OLD [NEW]                       takes a tag from a snapshot with the tag turntable, and gives it another
//   remove GROUP NAME                                a snapshot; only one with the tag turntable
//   report GROUP NAME                                a volume, as LVM's JSON
//   list                                             every volume with the tag turntable, as LVM's JSON

internal import CTurntableLVM
internal import Glibc

/// What the library said during a command. Its log function takes no context, and there is one thread.
private nonisolated(unsafe) var output: [String] = []
private nonisolated(unsafe) var complaints: [String] = []

let fields =
    "vg_name,lv_name,lv_size,lv_attr,lv_active,origin,pool_lv,thin_id,chunk_size,segtype,lv_tags,lv_time,vg_free,vg_extent_size"

/// LVM splits its command line at spaces and knows quotes: a word has none of them. Nor is it an option.
private func isWord(_ word: Substring) -> Bool {
    !word.isEmpty && word.first != "-" && word.utf8.count <= 128
        && word.allSatisfy { $0.isASCII && ($0.isLetter || $0.isNumber || "+_.-".contains($0)) }
}

/// LVM's command line for a request.
private func commandLine(_ verb: Substring, _ words: [Substring]) -> String? {
    guard words.allSatisfy(isWord) else { return nil }
    let report = "lvs --reportformat json --units b --nosuffix -o \(fields)"
    let ours = "--select lv_tags={turntable}"
    func tags(_ words: ArraySlice<Substring>) -> String { (["turntable"] + words).map { "--addtag \($0)" }.joined(separator: " ") }
    switch (verb, words.count) {
    case ("create", 5...8):
        return "lvcreate -y -s -p r \(tags(words[5...])) -L \(words[3])b -c \(words[4])b -n \(words[2]) \(words[0])/\(words[1])"
    case ("create-thin", 3...6): return "lvcreate -y -s -p r -k n \(tags(words[3...])) -n \(words[2]) \(words[0])/\(words[1])"
    case ("extend", 3): return "lvextend -y -L \(words[2])b \(words[0])/\(words[1])"
    case ("retag", 3): return "lvchange -y --deltag \(words[2]) \(ours) \(words[0])/\(words[1])"
    case ("retag", 4): return "lvchange -y --deltag \(words[2]) --addtag \(words[3]) \(ours) \(words[0])/\(words[1])"
    case ("remove", 2): return "lvremove -f -y \(ours) \(words[0])/\(words[1])"
    case ("report", 2): return "\(report) \(words[0])/\(words[1])"
    case ("list", 0): return "\(report) \(ours)"
    default: return nil
    }
}

private func say(_ text: String) {
    print(text)
    fflush(nil)
}

private func serve(_ handle: UnsafeMutableRawPointer, _ line: String) {
    let parts = line.split(separator: " ")
    guard parts.count >= 2, let command = commandLine(parts[1], Array(parts.dropFirst(2))) else {
        return say("\(parts.first ?? "0") failed this is no request: \(line.prefix(80))")
    }
    unsafe output = []
    unsafe complaints = []
    let result = unsafe lvm2_run(handle, command)
    for text in unsafe output { say("\(parts[0]) = \(text)") }
    if result == LVM2_COMMAND_SUCCEEDED { return say("\(parts[0]) ok") }
    let reason = unsafe complaints.filter { !$0.hasPrefix("WARNING: ") }.joined(separator: "; ")
    say("\(parts[0]) failed \(reason.isEmpty ? "LVM's code \(result)" : reason)")
}

@main
enum Helper {
    static func main() {
        // Before LVM reads its configuration: it looks at the terminal's interrupts while it holds its locks.
        signal(SIGINT, SIG_IGN)
        signal(SIGPIPE, SIG_IGN)
        unsafe lvm2_log_fn { level, _, _, _, message in
            guard let message = unsafe message else { return }
            let text = unsafe String(cString: message).split(separator: "\n").map(String.init)
            switch tt_lvm_line_kind(level) {
            case tt_lvm_output: unsafe output += text
            case tt_lvm_complaint: unsafe complaints += text
            default: break
            }
        }
        guard let handle = unsafe lvm2_init() else {
            print("0 failed LVM's library does not start")
            exit(7)
        }
        while let line = readLine() { unsafe serve(handle, line) }
        unsafe lvm2_exit(handle)
    }
}
