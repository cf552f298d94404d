// Declarations that the examples in doc comments assume. Each example shows one call, and is compiled with this file.

import Gevent
import GeventNet
import GeventTesting

func work() throws {}
func fetch() throws -> String { "" }
func fetch(_ name: String) throws -> String { name }
func add(_ a: Int, _ b: Int) -> Int { a + b }
func log(_ error: any Error) {}
func serve(_ socket: Socket) throws {}
func serve() {}
func handle() throws {}
func compute() throws -> Int { 42 }
func download() throws {}
func show(_ text: String) {}
func feed() throws {}
func consume() throws {}

struct Job {}
var list: [Job] { [] }
func run(_ job: Job) throws {}

var downloads: [Greenlet<String>] { [] }
var searches: [Greenlet<String>] { [] }

struct Request {}
struct Reply {}
struct Client { func send(_ request: Request, _ completion: @escaping (Reply) -> Void) {} }
let client = Client()
let request = Request()

struct Metrics { func count(_ name: String, _ label: String) {} }
let metrics = Metrics()

typealias MyLoop = VirtualLoop
