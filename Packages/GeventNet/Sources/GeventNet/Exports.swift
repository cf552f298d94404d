// A socket is a `ByteStream`: what that protocol offers is there with `import GeventNet` alone.
@_exported public import GeventIO
