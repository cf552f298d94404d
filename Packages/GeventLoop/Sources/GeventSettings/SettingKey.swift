/// A setting with the type of its value.
///
/// A module declares its settings as static properties in an extension, and registers each by
/// ``Setting/register(_:)``:
///
/// ```swift
/// extension SettingKey where Value == Bool {
///     static var isVerbose: SettingKey<Bool> {
///         SettingKey("GEVENT_MINE_VERBOSE", default: "false", summary: "Whether my loop prints its calls.")
///     }
/// }
/// ```
public struct SettingKey<Value: Sendable>: Sendable {
    /// The setting without the type.
    public let setting: Setting

    /// Formats a value as a text that `parse` accepts.
    let format: @Sendable (Value) -> String

    /// Creates a setting of any type.
    ///
    /// - Parameters:
    ///   - name: the environment variable, which begins with "GEVENT_".
    ///   - type: a description of the accepted values, for people.
    ///   - defaultText: the value if neither code nor the environment sets one. `parse` must accept it.
    ///   - summary: one sentence on the effect of the setting.
    ///   - parse: parses a text and returns the value, or nil if the text is not valid.
    ///   - format: formats a value as a text that `parse` accepts.
    public init(
        _ name: String, type: String, default defaultText: String, summary: String,
        parse: @escaping @Sendable (String) -> Value?, format: @escaping @Sendable (Value) -> String
    ) {
        setting = Setting(
            name: name, type: type, defaultText: defaultText, summary: summary,
            parse: { text in
                guard let value = parse(text) else { return nil }
                return value
            })
        self.format = format
    }
}

extension SettingKey where Value == String {
    /// Creates a setting that accepts any text. The code that reads the setting validates it.
    public init(_ name: String, type: String, default defaultText: String = "", summary: String) {
        self.init(name, type: type, default: defaultText, summary: summary, parse: { $0 }, format: { $0 })
    }
}

extension SettingKey where Value == Int {
    /// Creates a setting whose value is a number of bytes in a range, such as "65536", "64k" or "1MiB".
    ///
    /// - Parameter zero: another text for zero, such as "none".
    public init(
        _ name: String, type: String, default defaultText: String, bytes range: ClosedRange<Int>, zero: String? = nil,
        summary: String
    ) {
        self.init(
            name, type: type, default: defaultText, summary: summary,
            parse: { zero != nil && trimmed($0).lowercased() == zero ? 0 : parseBytes($0, in: range) },
            format: { $0 == 0 ? zero ?? "0" : String($0) })
    }
}

extension SettingKey where Value == Duration {
    /// Creates a setting whose value is a duration in a range, such as "0.1" (seconds), "100ms" or "2s".
    public init(
        _ name: String, type: String, default defaultText: String, in range: ClosedRange<Duration>, summary: String
    ) {
        self.init(
            name, type: type, default: defaultText, summary: summary, parse: { parseDuration($0, in: range) },
            format: { "\($0 / .microseconds(1))us" })
    }
}

extension SettingKey where Value == Bool {
    /// Creates a setting whose value is yes or no, in several spellings.
    public init(_ name: String, default defaultText: String, summary: String) {
        self.init(
            name, type: "1, true, on or yes; 0, false, off or no", default: defaultText, summary: summary,
            parse: parseYesOrNo, format: { $0 ? "true" : "false" })
    }
}

@Sendable
private func parseYesOrNo(_ text: String) -> Bool? {
    switch trimmed(text).lowercased() {
    case "1", "true", "on", "yes": true
    case "0", "false", "off", "no": false
    default: nil
    }
}

/// Parses a number of bytes: 65536, 64k, 64K, 64kb, 64KiB, 1m. A kilo is 1024 in each spelling.
private func parseBytes(_ text: String, in range: ClosedRange<Int>) -> Int? {
    let text = trimmed(text).lowercased()
    let digits = text.prefix { $0.isASCII && $0.isNumber }
    let factor: Int
    switch trimmed(String(text[digits.endIndex...])) {
    case "", "b": factor = 1
    case "k", "kb", "kib": factor = 1 << 10
    case "m", "mb", "mib": factor = 1 << 20
    case "g", "gb", "gib": factor = 1 << 30
    default: return nil
    }
    guard let number = Int(digits) else { return nil }
    let (bytes, overflows) = number.multipliedReportingOverflow(by: factor)
    return !overflows && range.contains(bytes) ? bytes : nil
}

/// Parses a duration: 0.1 or 2 for seconds, 100ms, 0.5s, 1m.
@Sendable
private func parseDuration(_ text: String, in range: ClosedRange<Duration>) -> Duration? {
    let text = trimmed(text).lowercased()
    let digits = text.prefix { $0 == "." || ($0.isASCII && $0.isNumber) }
    let unit: Duration
    switch trimmed(String(text[digits.endIndex...])) {
    case "us": unit = .microseconds(1)
    case "ms": unit = .milliseconds(1)
    case "", "s": unit = .seconds(1)
    case "m", "min": unit = .seconds(60)
    case "h": unit = .seconds(3600)
    default: return nil
    }
    // A larger number might not fit a Duration.
    guard let number = Double(digits), number.isFinite, number <= 1e9 else { return nil }
    let duration = unit * number
    return range.contains(duration) ? duration : nil
}

/// Returns the text without white space at its ends.
package func trimmed(_ text: some StringProtocol) -> String {
    guard let first = text.firstIndex(where: { !$0.isWhitespace }),
        let last = text.lastIndex(where: { !$0.isWhitespace })
    else { return "" }
    return String(text[first...last])
}
