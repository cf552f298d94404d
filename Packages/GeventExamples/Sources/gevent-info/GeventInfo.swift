import ArgumentParser
import FoundationEssentials
import Gevent

@main
struct GeventInfo: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "gevent-info",
        abstract: "Prints the event loop in use and why, all settings, and kernel and Swift runtime features.")

    @Flag(help: "Print one JSON object.")
    var json = false

    func run() throws {
        // Comes first, so that an unknown GEVENT_LOOP prints an error instead of trapping.
        let facts = Facts(of: try Hub.start())
        if json {
            let encoder = JSONEncoder()
            encoder.outputFormatting = [.prettyPrinted, .sortedKeys]
            print(String(decoding: try encoder.encode(facts), as: UTF8.self))
        } else {
            print(facts.text, terminator: "")
        }
    }
}

/// The facts that the program prints.
struct Facts: Encodable {
    struct Loop: Encodable {
        let name: String
        let reason: String
        let timerResolutionNanoseconds: Int
        let features: [String: String]
    }

    struct Setting: Encodable {
        let name: String
        let value: String
        let origin: String
        let type: String
        let summary: String
    }

    struct Runtime: Encodable {
        let guardPages: String
        let guardBytes: Int
        let stackBytes: Int
        let exclusiveAccesses: String
        let taskLocalsFollowGreenlets: Bool
    }

    let version: String
    let loop: Loop
    let linkedLoops: [String]
    let settings: [Setting]
    let unknownVariables: [String]
    let runtime: Runtime

    init(of hub: Hub) {
        version = Gevent.version
        loop = Loop(
            name: hub.loopName, reason: hub.loopReason,
            timerResolutionNanoseconds: Int(hub.timerResolution / .nanoseconds(1)), features: hub.loopFeatures)
        linkedLoops = LoopBackend.linked.map(\.name).sorted()
        settings = hub.resolvedConfiguration.settings.map {
            Setting(
                name: $0.name, value: $0.value, origin: $0.origin.rawValue, type: $0.setting.type,
                summary: $0.setting.summary)
        }
        let configuration = hub.resolvedConfiguration
        unknownVariables = configuration.unknownVariables.map { name in
            let nearest = configuration.nearestSetting(to: name).map { "; did you mean \($0)?" } ?? ""
            return "\(name): no module linked into this program has a setting with this name\(nearest)"
        }
        let facts = RuntimeFacts.current
        runtime = Runtime(
            guardPages: facts.guardPages.rawValue, guardBytes: facts.guardSize, stackBytes: facts.stackSize,
            exclusiveAccesses: facts.accessTracking.rawValue, taskLocalsFollowGreenlets: facts.swapsTaskWords)
    }
}
