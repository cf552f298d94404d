// Users of the core name settings, and they handle the loop's errors.
@_exported public import GeventLoop
@_exported public import GeventSettings

/// The library's version, following semantic versioning.
public let version = "0.1.0"

/// The settings of this process. Change them in code before the first hub is made.
///
/// ```swift
/// try Gevent.configuration.set(.stackSize, to: 64 << 10)
/// ```
///
/// gevent: `gevent.config`.
public var configuration: Configuration { Configuration.shared }
