internal import CGevent
internal import GeventCore
internal import Glibc

/// The attributes of a file from `stat`, without the access time, which reading changes.
public struct FileAttributes: Sendable, Hashable {
    /// The ID of the device; identifies the file together with ``inode``.
    public let device: UInt64
    /// The inode number on the device, which changes when the file is replaced.
    public let inode: UInt64
    /// The file type and permissions.
    public let mode: UInt32
    /// The number of hard links.
    public let linkCount: UInt64
    /// The user ID of the owner.
    public let userID: UInt32
    /// The group ID of the owner.
    public let groupID: UInt32
    /// The size in bytes.
    public let size: Int64
    /// The time of the last change of the contents, since 1970.
    public let modificationTime: Duration
    /// The time of the last change of the contents or attributes, since 1970.
    public let statusChangeTime: Duration

    /// Reads the attributes of the file at `path`, following symbolic links; nil if `stat` fails.
    init?(path: String) {
        var found = stat()
        if stat(path, &found) != 0 { return nil }
        device = UInt64(found.st_dev)
        inode = UInt64(found.st_ino)
        mode = UInt32(found.st_mode)
        linkCount = UInt64(found.st_nlink)
        userID = UInt32(found.st_uid)
        groupID = UInt32(found.st_gid)
        size = Int64(found.st_size)
        modificationTime = .seconds(found.st_mtim.tv_sec) + .nanoseconds(found.st_mtim.tv_nsec)
        statusChangeTime = .seconds(found.st_ctim.tv_sec) + .nanoseconds(found.st_ctim.tv_nsec)
    }
}
