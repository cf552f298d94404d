# Shared by the scripts in this folder, which source it. Bash; the caller has set -euo pipefail.

# The repository, whatever the working directory of the caller.
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

die() {
    echo "${0##*/}: $*" >&2
    exit 1
}

# Prints the comment at the top of the script, which is its manual: from the line after #! to the first empty line.
usage() {
    awk 'NR > 1 { if (!/^#/) exit; sub(/^# ?/, ""); print }' "$0"
}

# need PACKAGE PROBE...: the package is missing unless one of the probes, a command or an absolute path, exists.
MISSING_PACKAGES=()
need() {
    local package=$1 probe
    shift
    for probe in "$@"; do
        case $probe in
        /*) [[ -e $probe ]] && return 0 ;;
        *) command -v "$probe" >/dev/null && return 0 ;;
        esac
    done
    MISSING_PACKAGES+=("$package")
}

# Installs what `need` found missing. Says nothing when there is nothing to do.
install_missing() {
    local as_root=()
    ((${#MISSING_PACKAGES[@]})) || return 0
    if ! command -v apt-get >/dev/null; then
        die "missing: ${MISSING_PACKAGES[*]} (names of Debian's packages), and there is no apt-get here." \
            "Install them your own way, then run this again."
    fi
    if [[ $(id -u) != 0 ]]; then
        if ! command -v sudo >/dev/null; then
            die "missing: ${MISSING_PACKAGES[*]}, and you are neither root nor have sudo." \
                "Ask someone who has: apt-get install --no-install-recommends ${MISSING_PACKAGES[*]}"
        fi
        as_root=(sudo)
        # Without a terminal nobody can answer sudo: let it fail at once rather than wait for a password.
        [[ -t 0 ]] || as_root+=(-n)
    fi
    # `env` because sudo does not hand variables on.
    as_root+=(env DEBIAN_FRONTEND=noninteractive)
    echo "installing: ${MISSING_PACKAGES[*]}"
    "${as_root[@]}" apt-get -o DPkg::Lock::Timeout=300 -q update </dev/null ||
        echo "apt-get update failed; trying with the lists that are there" >&2
    "${as_root[@]}" apt-get -o DPkg::Lock::Timeout=300 -q install -y --no-install-recommends \
        "${MISSING_PACKAGES[@]}" </dev/null || die "apt-get could not install ${MISSING_PACKAGES[*]}"
    MISSING_PACKAGES=()
}

# With --no-install: says what is missing, and stops.
refuse_missing() {
    ((${#MISSING_PACKAGES[@]})) || return 0
    die "missing, and --no-install was given: ${MISSING_PACKAGES[*]}"
}
