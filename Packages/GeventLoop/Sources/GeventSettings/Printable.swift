/// Returns the text with every character escaped that a terminal would interpret instead of showing: control
/// characters, line separators, and characters that change the direction of the surrounding text. The escapes are
/// Swift's, such as `\u{1B}`.
///
/// Error messages quote text from outside the program, such as the value of an environment variable. Escaped, it stays
/// on its line and cannot imitate other output.
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
