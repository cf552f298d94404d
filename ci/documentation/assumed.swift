// What the examples in doc comments assume to be there. They show one call each, and this is compiled beside them.

import Gevent
import GeventNet
import GeventTesting

func work() throws {}
func fetch() throws -> String { "" }
func fetch(_ name: String) throws -> String { name }
func add(_ a: Int, _ b: Int) -> Int { a + b }
func log(_ error: any Error) {}
func serve(_ socket: Socket) throws {}
func requestedSocket() throws -> Socket { try Socket.pair().0 }
typealias MyLoop = VirtualLoop
