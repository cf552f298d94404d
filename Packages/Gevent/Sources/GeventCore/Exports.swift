// A user of the core names settings and, when something about the loop goes wrong, its errors. Both live in GeventLoop.
@_exported public import GeventLoop

/// The library's version, following semantic versioning.
public let version = "0.1.0"

/// The settings of this process, to be changed in code before the first hub is made.
///
/// ```swift
/// try Gevent.configuration.set(.stackSize, to: 64 << 10)
/// ```
///
/// gevent: `gevent.config`.
public var configuration: Configuration { Configuration.shared }
