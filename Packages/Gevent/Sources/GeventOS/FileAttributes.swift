internal import CGevent
internal import GeventCore
internal import Glibc

/// What `stat` says of a file, but for the time of the last access, which reading changes.
public struct FileAttributes: Sendable, Hashable {
    /// The device that holds it; with ``inode``, which file it is.
    public let device: UInt64
    /// Its number on the device: another one after the file was replaced.
    public let inode: UInt64
    /// Kind and permissions.
    public let mode: UInt32
    /// How many names it has.
    public let linkCount: UInt64
    /// The owner.
    public let userID: UInt32
    /// The owning group.
    public let groupID: UInt32
    /// In bytes.
    public let size: Int64
    /// When its contents last changed, since 1970.
    public let modificationTime: Duration
    /// When any of these last changed, since 1970.
    public let statusChangeTime: Duration

    /// Of the file at `path`, behind symbolic links; nil if there is none that can be looked at.
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
