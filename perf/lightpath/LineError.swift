import Glibc

/// What failed, on what, with which value against which limit, and one remedy.
struct LineError: Error, CustomStringConvertible {
    let message: String
    let exitCode: Int32

    var description: String { message }

    /// A request that cannot be honoured; the caller asked for something else than the line can do.
    static func refused(_ message: String) -> LineError { LineError(message: message, exitCode: ExitStatus.usage) }

    /// The system said no.
    static func system(_ what: String, errno code: Int32, remedy: String? = nil) -> LineError {
        let isPermission = code == EPERM || code == EACCES
        let advice = remedy ?? (isPermission ? "run as root, or with CAP_NET_ADMIN and CAP_SYS_ADMIN" : nil)
        let message = "\(what): \(text(ofErrno: code)) (errno \(code))" + (advice.map { "; \($0)" } ?? "")
        return LineError(message: message, exitCode: isPermission ? ExitStatus.permission : ExitStatus.system)
    }
}

/// The numbers of sysexits(3), so that scripts can tell a wrong option from a refusing system.
enum ExitStatus {
    static let commandRefused: Int32 = 1
    static let usage: Int32 = 64
    static let unavailable: Int32 = 69
    static let system: Int32 = 71
    static let permission: Int32 = 77
}

func text(ofErrno code: Int32) -> String {
    // strerror(3) never returns NULL, and only the main thread asks.
    unsafe String(cString: strerror(code))
}

/// Turns the "value or -errno" of a shim into a value or an error.
@discardableResult
func check(_ value: Int32, _ what: @autoclosure () -> String, remedy: String? = nil) throws(LineError) -> Int32 {
    guard value >= 0 else { throw .system(what(), errno: -value, remedy: remedy) }
    return value
}
