// A socket is a `ByteStream`: `import GeventNet` alone makes that protocol's calls available.
@_exported public import GeventIO
