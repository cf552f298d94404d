/// The text with each character escaped that a terminal would obey instead of showing it: control characters, line
/// separators, and characters that change the direction of the text around them. The escapes are Swift's own, such as
/// `\u{1B}`.
///
/// Error messages quote text of foreign origin, such as the value of an environment variable. Escaped, it stays on its
/// line and cannot pass for something else.
package func printable(_ text: String) -> String {
    if text.utf8.allSatisfy({ (0x20..<0x7f).contains($0) }) { return text }
    var result = ""
    for scalar in text.unicodeScalars {
        switch scalar.properties.generalCategory {
        case .control, .format, .lineSeparator, .paragraphSeparator:
            result += scalar.escaped(asASCII: true)
        default:
            result.unicodeScalars.append(scalar)
        }
    }
    return result
}
