// Most settings used as examples here are the core's, because the loop package has only two of its own.
import Gevent
import Glibc
import Testing

@Suite("Settings")
struct ConfigurationTests {
    private func resolve(_ environment: [String: String]) throws -> ResolvedConfiguration {
        try Configuration(environment: environment).resolve()
    }

    @Test("Without any variable the defaults are in force")
    func defaults() throws {
        let resolved = try resolve([:])
        #expect(resolved.loop == "")
        #expect(resolved.stackSize == 1_048_576)
        #expect(resolved.trackGreenletTree)
        #expect(!resolved.debugLoop)
        #expect(resolved.settings.allSatisfy { $0.origin == .default && $0.value == $0.setting.defaultText })
    }

    @Test("Every setting is resolved, in the order of the names")
    func rows() throws {
        #expect(try resolve([:]).settings.map(\.setting) == Setting.all)
        #expect(Setting.all.map(\.name) == Set(Setting.all.map(\.name)).sorted())
        for setting in Setting.all {
            #expect(setting.name.hasPrefix("GEVENT_"))
            #expect(setting.summary.hasSuffix("."))
        }
    }

    @Test(
        "Sizes are bytes, with or without a unit",
        arguments: [
            ("65536", 65536), ("64k", 65536), ("64K", 65536), ("64kb", 65536), ("64KiB", 65536), (" 64 KiB ", 65536),
            ("1m", 1 << 20), ("1MiB", 1 << 20), ("16k", 16 << 10), ("64m", 64 << 20), ("16384b", 16384),
        ])
    func sizes(text: String, bytes: Int) throws {
        #expect(try resolve(["GEVENT_STACK_SIZE": text]).stackSize == bytes)
    }

    @Test(
        "An invalid or out-of-range size is an error",
        arguments: [
            "k", "big", "-64k", "64x", "1.5m", "16383", "65m", "99999999999999999999", "9223372036854775807g",
        ])
    func badSizes(text: String) throws {
        let error = try #require(throws: ConfigurationError.self) { try resolve(["GEVENT_STACK_SIZE": text]) }
        #expect(error.code == .invalidValue)
        #expect(
            error.message
                == "GEVENT_STACK_SIZE=\"\(text)\": not a value this setting takes. "
                + "It takes bytes from 16k to 64m, such as 65536, 64k or 1MiB; the default is \"1MiB\".")
    }

    @Test("Yes has four spellings", arguments: ["1", "true", "on", "yes", "YES", " True "])
    func yes(text: String) throws {
        #expect(try resolve(["GEVENT_DEBUG_LOOP": text]).debugLoop)
    }

    @Test("Any variable that is empty or blank counts as unset", arguments: ["", "  ", "\t"])
    func blank(text: String) throws {
        let environment = Dictionary(uniqueKeysWithValues: Setting.all.map { ($0.name, text) })
        #expect(try resolve(environment).settings == resolve([:]).settings)
    }

    @Test("Control characters of a bad value are escaped in the message")
    func escapes() throws {
        let error = try #require(throws: ConfigurationError.self) {
            try resolve(["GEVENT_STACK_SIZE": "\u{1B}[2J\r\n\u{202E}\u{85}é\"\\"])
        }
        #expect(
            error.message.hasPrefix(
                "GEVENT_STACK_SIZE=\"\\u{1B}[2J\\r\\n\\u{202E}\\u{0085}é\"\\\": not a value"))
        let loop = try #require(throws: ConfigurationError.self) {
            _ = try resolve(["GEVENT_LOOP": "libuv\u{7}\n"]).makeLoop(from: [])
        }
        #expect(!loop.message.unicodeScalars.contains { $0.properties.generalCategory == .control })
        #expect(loop.message.contains("libuv\\u{07}\\n"))
        let failure = LoopError(errno: 2, operation: "open \u{1B}", fileDescriptor: nil)
        #expect(failure.description.hasPrefix("open \\u{1B}: ENOENT"))
    }

    @Test("No has four spellings", arguments: ["0", "false", "off", "no", "No", " no "])
    func no(text: String) throws {
        #expect(try !resolve(["GEVENT_TRACK_GREENLET_TREE": text]).trackGreenletTree)
    }

    @Test("Any other text is neither yes nor no", arguments: ["2", "y", "maybe", "tru"])
    func neither(text: String) throws {
        let error = try #require(throws: ConfigurationError.self) { try resolve(["GEVENT_DEBUG_LOOP": text]) }
        #expect(error.code == .invalidValue)
        #expect(error.setting == "GEVENT_DEBUG_LOOP")
    }

    @Test("Code takes precedence over the environment, and the environment over the default")
    func order() throws {
        let configuration = Configuration(
            environment: ["GEVENT_STACK_SIZE": "1m", "GEVENT_DEBUG_LOOP": "yes", "UNRELATED": "x"])
        try configuration.set(.stackSize, to: 65536)
        let resolved = try configuration.resolve()
        #expect(resolved.stackSize == 65536)
        #expect(resolved.debugLoop)
        // libev's setting exists only if libev is linked.
        let settings = resolved.settings.filter { $0.name != "GEVENT_BACKEND" }
        #expect(
            settings.map { "\($0.name)=\($0.value) \($0.origin)" } == [
                "GEVENT_DEBUG_LOOP=yes environment", "GEVENT_LOOP= default", "GEVENT_MAX_BLOCKING_TIME=100ms default",
                "GEVENT_MONITOR_MEMORY_MAX=none default", "GEVENT_MONITOR_MEMORY_PERIOD=5s default",
                "GEVENT_MONITOR_PRINT_BLOCKING_REPORTS=true default", "GEVENT_MONITOR_THREAD_ENABLE=false default",
                "GEVENT_REPORT_ON_SIGUSR2=false default", "GEVENT_STACK_SIZE=65536 code",
                "GEVENT_TIMER_SLACK=500us default", "GEVENT_TRACE= default", "GEVENT_TRACK_GREENLET_TREE=true default",
            ])
    }

    @Test("A variable that is not a setting of a linked module has no effect and is listed with the nearest name")
    func unknown() throws {
        let resolved = try resolve([
            "GEVENT_STAK_SIZE": "huge", "GEVENT_OF_A_MODULE_THAT_IS_NOT_LINKED": "?", "UNRELATED": "x",
            "GEVENT_TRACE": "", "GEVENT_LOOP": "epoll",
        ])
        #expect(resolved.unknownVariables == ["GEVENT_OF_A_MODULE_THAT_IS_NOT_LINKED", "GEVENT_STAK_SIZE"])
        #expect(resolved.nearestSetting(to: "GEVENT_STAK_SIZE") == "GEVENT_STACK_SIZE")
        #expect(resolved.nearestSetting(to: "GEVENT_OF_A_MODULE_THAT_IS_NOT_LINKED") == nil)
    }

    @Test("The settings of the process are read from its environment")
    func process() async {
        await #expect(processExitsWith: .success) {
            setenv("GEVENT_STACK_SIZE", "64k", 1)
            setenv("GEVENT_TRACE", "a=b", 1)
            setenv("GEVENT_STAK_SIZE", "1m", 1)
            let resolved = try Configuration.shared.resolve()
            #expect(resolved.stackSize == 64 << 10)
            #expect(resolved.trace == "a=b")
            #expect(resolved.unknownVariables.contains("GEVENT_STAK_SIZE"))
            exit(0)
        }
    }

    @Test("A setting that is not registered has its default, and can be set in code")
    func unregistered() throws {
        let key = SettingKey(
            "GEVENT_TEST_OF_SIZE", type: "bytes", default: "2k", bytes: 0...4096, summary: "For a test.")
        let configuration = Configuration(environment: ["GEVENT_TEST_OF_SIZE": "1k"])
        #expect(try configuration.resolve()[key] == 2048)
        let another = Configuration(environment: ["GEVENT_TEST_OF_SIZE": "1k"])
        #expect(throws: ConfigurationError.self) { try another.set(key, to: 5000) }
        try another.set(key, to: 3000)
        #expect(try another.resolve()[key] == 3000)
        #expect(try another.resolve().settings.contains { $0.name == key.setting.name && $0.origin == .code })
        #expect(!Setting.all.contains(key.setting))
    }

    @Test("A value set in code can be removed")
    func removeValue() throws {
        let configuration = Configuration(environment: ["GEVENT_LOOP": "epoll"])
        try configuration.set(.loop, to: "libuv")
        try configuration.set(.loop, to: nil)
        #expect(try configuration.resolve().loop == "epoll")
    }

    @Test("A bad value in code is rejected at once and changes nothing")
    func badCode() throws {
        let configuration = Configuration(environment: [:])
        let error = try #require(throws: ConfigurationError.self) { try configuration.set(.stackSize, to: 5) }
        #expect(error.message.hasPrefix("GEVENT_STACK_SIZE=\"5\" (set in code): not a value this setting takes."))
        #expect(try configuration.resolve().stackSize == 1_048_576)
    }

    @Test("A change after resolving is too late, and the error explains it")
    func tooLate() throws {
        let configuration = Configuration(environment: [:])
        _ = try configuration.resolve()
        let error = try #require(throws: ConfigurationError.self) { try configuration.set(.loop, to: "libuv") }
        #expect(error.code == .tooLate)
        #expect(
            error.message
                == "GEVENT_LOOP cannot be changed to \"libuv\" any more: the settings were read when the first hub was "
                + "made. Set it before that.")
        #expect(try configuration.resolve().loop == "")
    }

    @Test("A bad variable can be corrected in code after the first attempt")
    func correct() throws {
        let configuration = Configuration(environment: ["GEVENT_STACK_SIZE": "huge"])
        #expect(throws: ConfigurationError.self) { try configuration.resolve() }
        try configuration.set(.stackSize, to: 1 << 20)
        #expect(try configuration.resolve().stackSize == 1 << 20)
    }
}
