extension SettingKey where Value == String {
    /// `GEVENT_LOOP`: which loop runs. One name, or several separated by commas; case and spaces do not matter.
    public static var loop: SettingKey<String> {
        SettingKey(
            "GEVENT_LOOP", type: "a loop's name, or several separated by commas", default: "",
            summary: "The event loop: one name is that one or an error, of a list the first that starts is used; "
                + "empty prefers epoll, libev, libuv, then others by name.",
            // Every text is a list of names. Whether they exist is known only when a loop is made.
            parse: { $0 }, format: { $0 })
    }

    /// `GEVENT_BACKEND`: how libev, if that is the loop, asks the kernel for events.
    public static var libevBackend: SettingKey<String> {
        SettingKey(
            "GEVENT_BACKEND", type: "epoll, poll, select, linuxaio or iouring, or several separated by commas",
            default: "",
            summary: "What libev runs on: the first that this system has; empty leaves it to LIBEV_FLAGS and libev. "
                + "Other loops ignore it.",
            // The names are for the loop on libev to judge: it knows what its library was built with.
            parse: { $0 }, format: { $0 })
    }
}

extension SettingKey where Value == Int {
    /// `GEVENT_STACK_SIZE`: bytes of stack per greenlet, from 16 KiB to 64 MiB; the core rounds up to whole pages.
    public static var stackSize: SettingKey<Int> {
        SettingKey(
            "GEVENT_STACK_SIZE", type: "bytes from 16k to 64m, such as 65536, 64k or 1MiB", default: "256KiB",
            summary: "The stack of a greenlet; memory is used only as far as it is touched.",
            parse: { parseBytes($0, in: (16 << 10)...(64 << 20)) }, format: { String($0) })
    }
}

extension SettingKey where Value == Bool {
    /// `GEVENT_TRACK_GREENLET_TREE`: whether each greenlet remembers who spawned it and where, and shares locals with its tree.
    public static var trackGreenletTree: SettingKey<Bool> {
        yesOrNo(
            "GEVENT_TRACK_GREENLET_TREE", default: "true",
            summary: "Whether each greenlet remembers who spawned it and where, and shares locals with its tree.")
    }

    /// `GEVENT_DEBUG_LOOP`: whether loops are wrapped in a ``CheckedLoop``.
    public static var debugLoop: SettingKey<Bool> {
        yesOrNo(
            "GEVENT_DEBUG_LOOP", default: "false",
            summary: "Whether each call of the event loop is checked, and logged to standard error.")
    }

    private static func yesOrNo(_ name: String, default defaultText: String, summary: String) -> SettingKey<Bool> {
        SettingKey(
            name, type: "1, true, on or yes; 0, false, off, no or empty", default: defaultText, summary: summary,
            parse: parseYesOrNo, format: { $0 ? "true" : "false" })
    }
}

@Sendable
private func parseYesOrNo(_ text: String) -> Bool? {
    switch trimmed(text).lowercased() {
    case "1", "true", "on", "yes": true
    case "0", "false", "off", "no", "": false
    default: nil
    }
}

/// Bytes as people write them: 65536, 64k, 64K, 64kb, 64KiB, 1m. A kilo is 1024 in each spelling.
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

/// The text without white space at its ends.
func trimmed(_ text: some StringProtocol) -> String {
    guard let first = text.firstIndex(where: { !$0.isWhitespace }),
        let last = text.lastIndex(where: { !$0.isWhitespace })
    else { return "" }
    return String(text[first...last])
}
