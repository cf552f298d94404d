import GeventLoop
import Testing

@Suite("Choosing a loop")
struct SelectionTests {
    static let epoll = LoopBackend(name: "epoll") { (_) throws(LoopError) in StubLoop("epoll") }
    static let libev = LoopBackend(name: "libev") { (_) throws(LoopError) in StubLoop("libev") }
    static let libuv = LoopBackend(name: "libuv") { (_) throws(LoopError) in StubLoop("libuv") }
    static let amber = LoopBackend(name: "Amber") { (_) throws(LoopError) in StubLoop("amber") }
    static let broken = LoopBackend(name: "broken") { (_) throws(LoopError) in
        throw LoopError(.unsupported, operation: "broken_init", message: "not on this kernel")
    }

    private func choose(_ request: String?, _ backends: [LoopBackend]) throws -> String {
        let configuration = Configuration(environment: request.map { ["GEVENT_LOOP": $0] } ?? [:])
        let made = try configuration.resolve().makeLoop(from: backends)
        return try #require(made.loop as? StubLoop).label
    }

    private func failure(_ request: String?, _ backends: [LoopBackend]) throws -> ConfigurationError {
        try #require(throws: ConfigurationError.self) { try choose(request, backends) }
    }

    @Test("Unset or empty prefers epoll, libev, libuv, then the others by name", arguments: [nil, "", "  ", " , "])
    func defaultOrder(request: String?) throws {
        #expect(try choose(request, [Self.amber, Self.libuv, Self.libev, Self.epoll]) == "epoll")
        #expect(try choose(request, [Self.amber, Self.libuv, Self.libev]) == "libev")
        #expect(try choose(request, [Self.amber, Self.libuv]) == "libuv")
        #expect(try choose(request, [Self.broken, Self.amber]) == "amber")
    }

    @Test("By default a loop that does not start is skipped")
    func defaultSkips() throws {
        let brokenEpoll = LoopBackend(name: "epoll") { (_) throws(LoopError) in
            throw LoopError(.outOfResources, operation: "epoll_create1", message: "no more")
        }
        let configuration = try Configuration(environment: [:]).resolve()
        let made = try configuration.makeLoop(from: [Self.libuv, brokenEpoll])
        #expect((made.loop as? StubLoop)?.label == "libuv")
        #expect(
            made.reason
                == "the first in the default order that started (epoll could not be started: epoll_create1: no more)")
    }

    @Test("Case and spaces do not matter", arguments: ["libuv", "LibUV", "  libuv ", "libuv,", ",LIBUV"])
    func spelling(request: String) throws {
        #expect(try choose(request, [Self.epoll, Self.libuv]) == "libuv")
    }

    @Test("With a list, the first loop that is linked and starts is used")
    func list() throws {
        #expect(try choose("libuv,epoll", [Self.epoll, Self.libuv]) == "libuv")
        #expect(try choose("libev, epoll", [Self.epoll, Self.libuv]) == "epoll")
        #expect(try choose("broken,amber,epoll", [Self.epoll, Self.amber, Self.broken]) == "amber")
    }

    @Test("A name that occurs in a list twice is tried once; case and spaces do not matter")
    func listSpelling() throws {
        #expect(try choose(" , LibUV ,epoll", [Self.epoll, Self.libuv]) == "libuv")
        #expect(
            try failure("broken, BROKEN", [Self.broken]).message
                == "GEVENT_LOOP=\"broken, BROKEN\": broken could not be started: broken_init: not on this kernel "
                + "(linked: broken).")
    }

    @Test("Loops after the first that starts are not created")
    func listStopsAtTheFirst() throws {
        let untouched = LoopBackend(name: "untouched") { (_) throws(LoopError) in
            Issue.record("it was made")
            return StubLoop("untouched")
        }
        #expect(try choose("epoll,untouched", [untouched, Self.epoll]) == "epoll")
        #expect(try choose("", [untouched, Self.epoll]) == "epoll")
    }

    @Test("The reason names the request and explains why each earlier loop was skipped")
    func reason() throws {
        let configuration = try Configuration(environment: ["GEVENT_LOOP": "libev,broken,epoll"]).resolve()
        let made = try configuration.makeLoop(from: [Self.epoll, Self.broken])
        #expect(
            made.reason
                == "asked for by GEVENT_LOOP=\"libev,broken,epoll\" (libev is not linked into this program; "
                + "broken could not be started: broken_init: not on this kernel)")
    }

    @Test("The error for an unknown name lists the linked loops, the nearest name, and how to add a loop")
    func unknown() throws {
        let error = try failure("libvu", [Self.epoll, Self.libuv])
        #expect(error.code == .noSuchLoop)
        #expect(error.setting == "GEVENT_LOOP")
        #expect(
            error.message
                == "GEVENT_LOOP=\"libvu\": no loop of that name is linked into this program (linked: epoll, libuv). "
                + "Did you mean \"libuv\"? To add one, depend on the product GeventLibev or GeventLibuv.")
    }

    @Test("A name that resembles none gets no suggestion")
    func farAway() throws {
        #expect(
            try failure("kqueue", [Self.epoll]).message
                == "GEVENT_LOOP=\"kqueue\": no loop of that name is linked into this program (linked: epoll). "
                + "To add one, depend on the product GeventLibev or GeventLibuv.")
    }

    @Test("A known name that is not linked needs a dependency, not another spelling")
    func notLinked() throws {
        #expect(
            try failure("libev", [Self.epoll, Self.libuv]).message
                == "GEVENT_LOOP=\"libev\": no loop of that name is linked into this program (linked: epoll, libuv). "
                + "To add it, depend on the product GeventLibev.")
    }

    @Test("With every known loop linked, no dependency is suggested")
    func allLinked() throws {
        #expect(
            try failure("epol", [Self.libuv, Self.libev, Self.epoll]).message
                == "GEVENT_LOOP=\"epol\": no loop of that name is linked into this program "
                + "(linked: epoll, libev, libuv). Did you mean \"epoll\"?")
    }

    @Test("One name is that loop or an error, never another")
    func oneThatFails() throws {
        let error = try failure("broken", [Self.epoll, Self.broken])
        #expect(error.code == .loopFailed)
        #expect(
            error.message
                == "GEVENT_LOOP=\"broken\": broken could not be started: broken_init: not on this kernel "
                + "(linked: epoll, broken).")
    }

    @Test("If no loop of a list can be used, the error gives the reason for each")
    func listThatFails() throws {
        let error = try failure("libvu, broken", [Self.libuv, Self.broken])
        #expect(error.code == .loopFailed)
        #expect(
            error.message
                == "GEVENT_LOOP=\"libvu, broken\": none of these loops can be used: libvu is not linked into this "
                + "program; broken could not be started: broken_init: not on this kernel (linked: libuv, broken). "
                + "Did you mean \"libuv\"? To add one, depend on the product GeventLibev or GeventLibuv.")
    }

    @Test("For a list of known names that are not linked, the error names each product")
    func listNotLinked() throws {
        let error = try failure("libuv,libev", [Self.epoll])
        #expect(error.code == .noSuchLoop)
        #expect(
            error.message
                == "GEVENT_LOOP=\"libuv,libev\": none of these loops can be used: libuv is not linked into this program; "
                + "libev is not linked into this program (linked: epoll). To add them, depend on the products "
                + "GeventLibev and GeventLibuv.")
    }

    @Test("For a list of misspelt names, the error suggests each correct name")
    func listMisspelt() throws {
        #expect(
            try failure("libvu,epol", [Self.epoll, Self.libev, Self.libuv]).message
                == "GEVENT_LOOP=\"libvu,epol\": none of these loops can be used: libvu is not linked into this program; "
                + "epol is not linked into this program (linked: epoll, libev, libuv). "
                + "Did you mean \"libuv\" or \"epoll\"?")
    }

    @Test(
        "The nearest name is suggested, including names of third-party loops",
        arguments: [
            ("libve", "libev"), ("libe", "libev"), ("libu", "libuv"), ("luv", "libuv"), ("ebpoll", "epoll"),
            ("LIBVU", "libuv"), ("ambre", "amber"),
        ])
    func nearest(misspelt: String, meant: String) throws {
        let message = try failure(misspelt, [Self.epoll, Self.libev, Self.libuv, Self.amber]).message
        #expect(message.hasSuffix("Did you mean \"\(meant)\"?"))
    }

    @Test("If none of the linked loops starts by default, the error gives the reason for each")
    func defaultFails() throws {
        let error = try failure(nil, [Self.broken])
        #expect(error.code == .loopFailed)
        #expect(
            error.message
                == "GEVENT_LOOP is not set, and none of the linked loops could be started: "
                + "broken could not be started: broken_init: not on this kernel.")
    }

    @Test("If no loop is linked, the error names the products to depend on", arguments: ["", "libuv"])
    func nothingLinked(request: String) throws {
        let error = try failure(request, [])
        #expect(error.code == .noLoopLinked)
        #expect(
            error.message
                == (request.isEmpty ? "" : "GEVENT_LOOP=\"libuv\": ")
                + "no event loop is linked into this program. Depend on the product Gevent, which includes epoll, or "
                + "on GeventLibev or GeventLibuv, or call LoopBackend.register(_:) before the first hub.")
    }

    @Test("A choice made in code takes precedence over the environment, and errors mention it")
    func code() throws {
        let configuration = Configuration(environment: ["GEVENT_LOOP": "epoll"])
        try configuration.set(.loop, to: "libvu")
        let error = try #require(throws: ConfigurationError.self) {
            try configuration.resolve().makeLoop(from: [Self.libuv])
        }
        #expect(error.message.hasPrefix("GEVENT_LOOP=\"libvu\" (set in code): no loop of that name"))
    }

    @Test("A choice made in code is used regardless of the environment")
    func codeIsUsed() throws {
        let configuration = Configuration(environment: ["GEVENT_LOOP": "nonsense"])
        try configuration.set(.loop, to: "LibUV")
        let made = try configuration.resolve().makeLoop(from: [Self.epoll, Self.libuv])
        #expect((made.loop as? StubLoop)?.label == "libuv")
        #expect(made.reason == "asked for by GEVENT_LOOP=\"LibUV\" (set in code)")
    }

    @Test("Code can restore the default order against the environment")
    func codeAsksForDefault() throws {
        let configuration = Configuration(environment: ["GEVENT_LOOP": "libuv"])
        try configuration.set(.loop, to: "")
        let made = try configuration.resolve().makeLoop(from: [Self.epoll, Self.libuv])
        #expect((made.loop as? StubLoop)?.label == "epoll")
        #expect(made.reason == "the first in the default order that started")
    }

    @Test("GEVENT_DEBUG_LOOP wraps the loop, and it keeps its name")
    func debug() throws {
        let configuration = try Configuration(environment: ["GEVENT_DEBUG_LOOP": "1"]).resolve()
        let made = try configuration.makeLoop(from: [Self.libuv])
        let checked = try #require(made.loop as? CheckedLoop<StubLoop>)
        #expect(checked.base.label == "libuv")
        #expect(type(of: made.loop).backendName == "stub")
        #expect(checked.features == ["checked": "yes"])
    }
}
