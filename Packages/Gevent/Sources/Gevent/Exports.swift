// Users import one module. The modules below are internal structure and are documented as part of this one.
@_exported public import GeventCore
@_exported public import GeventDiagnostics
@_exported public import GeventIO
@_exported public import GeventOS

// An export by name shadows declarations of the same name and signature in other modules. It makes `Semaphore` ours
// beside Foundation and Glibc, and makes the compiler reject calls of the C library that would block every greenlet;
// see BlockingCalls.swift.
@_exported public import class GeventCore.Semaphore
@_exported public import func GeventCore.clock_nanosleep
@_exported public import func GeventCore.fork
@_exported public import func GeventCore.getaddrinfo
@_exported public import func GeventCore.gethostbyname
@_exported public import func GeventCore.getnameinfo
@_exported public import func GeventCore.lockf
@_exported public import func GeventCore.nanosleep
@_exported public import func GeventCore.pause
@_exported public import func GeventCore.poll
@_exported public import func GeventCore.select
@_exported public import func GeventCore.sigwait
@_exported public import func GeventCore.sleep
@_exported public import func GeventCore.system
@_exported public import func GeventCore.usleep
@_exported public import func GeventCore.wait
@_exported public import func GeventCore.waitid
@_exported public import func GeventCore.waitpid
