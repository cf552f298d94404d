import Glibc
import Testing

/// The example program that prints the current settings, if it was built next to this test.
private let geventInfo: String? = {
    var buffer = [CChar](repeating: 0, count: Int(PATH_MAX))
    let length = readlink("/proc/self/exe", &buffer, buffer.count)
    guard length > 0 else { return nil }
    let path = String(decoding: buffer.prefix(length).map { UInt8(bitPattern: $0) }, as: UTF8.self)
    let program = path.split(separator: "/").dropLast().reduce("") { "\($0)/\($1)" } + "/gevent-info"
    return access(program, X_OK) == 0 ? program : nil
}()

/// The reason why this system cannot run a set-user-ID program for another user; nil if it can.
private let obstacle: String? = {
    if geventInfo == nil { return "gevent-info was not built" }
    if isSanitized { return "LeakSanitizer does not work in a set-user-ID program" }
    if geteuid() != 0 { return "only root can make a program of another user" }
    var mount = statvfs()
    if statvfs("/tmp", &mount) != 0 || mount.f_flag & UInt(ST_NOSUID) != 0 { return "/tmp is mounted nosuid" }
    if let file = fopen("/proc/self/status", "re") {
        defer { fclose(file) }
        var line = [CChar](repeating: 0, count: 256)
        while fgets(&line, CInt(line.count), file) != nil {
            if strncmp(line, "NoNewPrivs:\t1", 13) == 0 { return "the process may not gain privileges" }
        }
    }
    return nil
}()

@Suite("Set-user-ID programs")
struct SetUserIDTests {
    @Test(
        "They ignore settings from the environment, which the caller controls",
        .enabled(if: obstacle == nil, "\(obstacle ?? "")"))
    func environment() throws {
        let program = try #require(geventInfo)
        // 0: correct. 2: the plain program ignores the setting, so the test proves nothing.
        let script = """
            set -e
            directory=$(mktemp -d /tmp/gevent-set-user-id-XXXXXX)
            trap 'rm -rf "$directory"' EXIT
            chmod 755 "$directory"
            cp '\(program)' "$directory/info"
            export GEVENT_STACK_SIZE=128k GEVENT_TRACE="$directory/trace.%p"
            "$directory/info" > "$directory/plain"
            grep -q 'GEVENT_STACK_SIZE="128k"' "$directory/plain" || exit 2
            rm "$directory"/trace.*
            chown 65534 "$directory/info"
            chmod 4755 "$directory/info"
            chmod 777 "$directory"
            GEVENT_LOOP=nonsense "$directory/info" > "$directory/privileged" || exit 3
            grep -q 'GEVENT_STACK_SIZE=' "$directory/privileged" || exit 4
            ! grep -q '128k' "$directory/privileged" || exit 5
            ! ls "$directory"/trace.* 2> "$directory/none" || exit 6
            """
        var status: CInt = 0
        let pid = try shell(script)
        while waitpid(pid, &status, 0) < 0 && errno == EINTR {}
        #expect(status == 0, "exit status \(status >> 8)")
    }
}
