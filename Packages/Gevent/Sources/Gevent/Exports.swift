// One import for users: the modules below are how the library is built, and are documented here as one.
@_exported public import GeventCore
@_exported public import GeventDiagnostics
@_exported public import GeventIO
@_exported public import GeventOS
