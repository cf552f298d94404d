# Functions shared by the scripts in this folder, which source this file. Bash; the caller has set -euo pipefail.

# The root of the repository.
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

die() {
    echo "${0##*/}: $*" >&2
    exit 1
}

# Prints the script's manual: the comment at its top, from the line after #! to the first empty line.
usage() {
    awk 'NR > 1 { if (!/^#/) exit; sub(/^# ?/, ""); print }' "$0"
}

# need PACKAGE PROBE...: records PACKAGE as missing unless one of the probes, a command or an absolute path, exists.
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

# Installs the missing packages. Prints nothing if there are none.
install_missing() {
    local as_root=()
    ((${#MISSING_PACKAGES[@]})) || return 0
    if ! command -v apt-get >/dev/null; then
        die "missing: ${MISSING_PACKAGES[*]} (Debian's names of the packages), and apt-get is not available." \
            "Install them in another way, then run this again."
    fi
    if [[ $(id -u) != 0 ]]; then
        if ! command -v sudo >/dev/null; then
            die "missing: ${MISSING_PACKAGES[*]}, and you neither are root nor have sudo." \
                "Ask an administrator to run: apt-get install --no-install-recommends ${MISSING_PACKAGES[*]}"
        fi
        as_root=(sudo)
        # Without a terminal, sudo must fail at once instead of waiting for a password.
        [[ -t 0 ]] || as_root+=(-n)
    fi
    # `env`, because sudo does not pass variables on.
    as_root+=(env DEBIAN_FRONTEND=noninteractive)
    echo "installing: ${MISSING_PACKAGES[*]}"
    "${as_root[@]}" apt-get -o DPkg::Lock::Timeout=300 -q update </dev/null ||
        echo "apt-get update failed; trying with the existing package lists" >&2
    "${as_root[@]}" apt-get -o DPkg::Lock::Timeout=300 -q install -y --no-install-recommends \
        "${MISSING_PACKAGES[@]}" </dev/null || die "apt-get could not install ${MISSING_PACKAGES[*]}"
    MISSING_PACKAGES=()
}

# With --no-install: lists the missing packages and exits.
refuse_missing() {
    ((${#MISSING_PACKAGES[@]})) || return 0
    die "missing, and --no-install was given: ${MISSING_PACKAGES[*]}"
}
