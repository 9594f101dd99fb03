# shellcheck shell=bash
# Makes what potofs needs to run, to be checked and to be tested. Sourced by the scripts beside this folder.
#
#   setup GROUP…   Debian packages, .venv with the package and these dependency groups
#   setup_bun      the JavaScript runtime bun in .tools, for tests
#
# A caller may add to `debian` (packages to install) and `programs` (what has to be on PATH) beforehand.

root=${BASH_SOURCE[0]%/scripts/lib/*} # the callers source this file by its absolute path
venv=$root/.venv
stamp=$venv/.potofs-stamp
bun=$root/.tools/node_modules/.bin/bun

# pyfuse3 is distributed as source: it is compiled against libfuse3.
debian=(fuse3 libfuse3-dev 'pkg-config|pkgconf' gcc libc6-dev)
programs=(fusermount3)

# These would turn the virtual environment's Python, or what it imports, into something else.
unset PYTHONHOME PYTHONPATH VIRTUAL_ENV

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }
die() {
    say "$@"
    exit 1
}

# Runs a command whose output matters only if it fails.
quietly() { # quietly FAILURE-MESSAGE COMMAND…
    local failure=$1 log
    shift
    # A file rather than a pipe: if this script is killed, dpkg can still finish what it is at.
    log=$(mktemp)
    exec 8<>"$log"
    rm -f -- "$log"
    if ! "$@" >&8 2>&1; then
        cat /dev/fd/8 >&2 # opens it again, so from the start
        die "$failure"
    fi
    exec 8>&-
}

# One set-up of a checkout at a time. The lock is on the folder itself, which leaves no file behind, and goes
# with the subshell, so that a mount started afterwards does not hold it.
locked() (
    exec 9<"$root" </dev/null >&2 # standard input and output are for the program that follows
    if ! flock -n 9; then
        say "waiting for another set-up of $root"
        flock 9
    fi
    "$@"
)

# ---- Is there anything to do? Asked at every start, so it starts no other process.

read_stamp() {
    local IFS=
    stamp_checkout='' stamp_python='' stamp_request='' stamp_groups='' stamp_project=''
    [[ -r $stamp ]] || return 0
    # shellcheck disable=SC2162  # each field was written without escapes and ends in NUL
    {
        read -r -d '' stamp_checkout && read -r -d '' stamp_python && read -r -d '' stamp_request &&
            read -r -d '' stamp_groups && read -r -d '' stamp_project
    } <"$stamp" || stamp_project=''
}

read_project() {
    # The whole file: it has no NUL, so read comes to its end and reports that.
    IFS= read -r -d '' project <"$root/pyproject.toml" || [[ -n $project ]] || die "cannot read $root/pyproject.toml"
}

# A virtual environment has its own path and its Python's written into it.
venv_fits() { # after read_stamp
    [[ $stamp_checkout == "$root" && -x $stamp_python && -x $venv/bin/python ]]
}

venv_ready() {
    local group
    read_stamp
    read_project
    venv_fits || return 1
    [[ -x $venv/bin/potofs && $stamp_project == "$project" ]] || return 1
    [[ -z ${POTOFS_PYTHON-} || $POTOFS_PYTHON == "$stamp_request" ]] || return 1
    for group in "$@"; do
        [[ " $stamp_groups " == *" $group "* ]] || return 1
    done
}

programs_ready() {
    type -P "${programs[@]}" >/dev/null # a builtin: fails if one of them is missing
}

setup() {
    if programs_ready && venv_ready "$@"; then
        return
    fi
    locked make_ready "$@"
}

# ---- Python and packages of the distribution

on_debian() { type -P apt-get dpkg-query apt-cache >/dev/null; }

# Prints the real path of an interpreter if it is 3.11 or later: a link like /usr/bin/python3 may mean another
# version after an upgrade, and a virtual environment is of one version.
real_python() {
    [[ -n $1 && -x $1 ]] || return 0
    "$1" -I -c 'import os, sys; sys.version_info >= (3, 11) and print(os.path.realpath(sys.executable))' \
        2>/dev/null || true
}

newest_python_of_apt() {
    apt-cache search --names-only '^python3\.[0-9]+$' | sed -n 's/^python3\.\([0-9]*\) .*/\1/p' |
        sort -n | awk '$1 >= 11 { newest = "/usr/bin/python3." $1 } END { print newest }'
}

choose_python() { # sets python; it may still have to be installed
    local candidate
    if [[ -n ${POTOFS_PYTHON-} ]]; then
        python=$(real_python "$(type -P "$POTOFS_PYTHON" || true)")
        [[ -n $python ]] || die "POTOFS_PYTHON=$POTOFS_PYTHON is not a Python 3.11 or later"
        return
    fi
    for candidate in /usr/bin/python3 /usr/bin/python3.{50..11}; do
        python=$(real_python "$candidate")
        [[ -z $python ]] || return 0
    done
    if on_debian; then
        python=$(newest_python_of_apt)
        if [[ -z $python && $EUID == 0 ]]; then
            quietly "apt-get update failed (see above)" apt-get -q update
            python=$(newest_python_of_apt)
        fi
        # A user cannot fetch the lists of packages; what apt's default Python is shows when they are there.
        if [[ -z $python && $EUID != 0 && ! -x /usr/bin/python3 ]]; then
            python=/usr/bin/python3
        fi
        [[ -n $python ]] || die "needs Python 3.11 or later, which is neither in /usr/bin nor in apt's lists of packages:" \
            "see what apt-get update says, or name one in POTOFS_PYTHON"
    fi
    [[ -n $python ]] || die "needs Python 3.11 or later, and found none in /usr/bin: install one, or name one in POTOFS_PYTHON"
}

installed() { # installed PACKAGE[|PACKAGE…]
    local -a alternatives
    IFS='|' read -r -a alternatives <<<"$1"
    [[ $(dpkg-query -W -f '${db:Status-Status}\n' "${alternatives[@]}" 2>/dev/null) =~ (^|$'\n')installed($'\n'|$) ]]
}

apt_install() {
    DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends -o DPkg::Lock::Timeout=300 \
        install "$@" 9<&-
}

# The lists of packages may be missing or old, or an earlier installation may have been interrupted.
apt_install_anew() {
    DEBIAN_FRONTEND=noninteractive dpkg --configure -a 9<&- || true # apt-get says what is wrong
    apt-get -q update || true                                       # one broken source need not matter
    apt_install "$@"
}

# Installing a server's package starts the server, which no test wants. policy-rc.d is Debian's way to say no.
# An existing one is the administrator's and stays; ours speaks of redis only, and only while this script lives,
# so that one left behind by a kill changes nothing.
forbid_redis_service() {
    local policy=/usr/sbin/policy-rc.d mark='# Temporary, by the set-up of potofs tests' pid=$BASHPID
    if grep -qsxF "$mark" "$policy"; then
        rm -f -- "$policy"
    fi
    if (set -C && printf '%s\n' '#!/bin/sh' "$mark" \
        "case \$1 in redis*) [ ! -d /proc/$pid ] || exit 101 ;; esac" >"$policy") 2>/dev/null; then
        # shellcheck disable=SC2064  # the path is known now and local
        trap "rm -f -- $policy" EXIT
        chmod 755 "$policy"
    fi
}

need_packages() {
    local -a wanted=("${debian[@]}") missing=()
    local package
    if [[ $python == /usr/bin/python3* ]]; then
        package=${python#/usr/bin/}
        wanted=("$package" "$package-venv" "$package-dev" "${wanted[@]}")
    fi
    for package in "${wanted[@]}"; do
        installed "$package" || missing+=("${package%%|*}")
    done
    if ((${#missing[@]} == 0)); then
        return
    fi
    if ((EUID != 0)); then
        local sudo='' command
        type -P sudo >/dev/null && sudo='sudo '
        command="${sudo}apt-get install ${missing[*]}"
        apt-cache show "${missing[@]}" >/dev/null 2>&1 || command="${sudo}apt-get update && $command"
        die "needs packages that only root can install; run this as root, then start again: $command"
    fi
    say "installing ${missing[*]}"
    if [[ " ${missing[*]} " == *' redis-server '* ]]; then
        forbid_redis_service
    fi
    if ! apt_install "${missing[@]}" >/dev/null 2>&1; then
        quietly "apt-get could not install ${missing[*]} (see above)" apt_install_anew "${missing[@]}"
    fi
}

# Where names of packages are not known, look for the things themselves.
need_things() {
    local -a missing=()
    local program
    for program in "${programs[@]}" cc pkg-config; do
        type -P "$program" >/dev/null || missing+=("$program")
    done
    pkg-config --exists fuse3 2>/dev/null || missing+=("libfuse 3 with its header files")
    if ((${#missing[@]})); then
        local list
        printf -v list ', %s' "${missing[@]}"
        die "needs what is missing here, install it and start again: ${list#, }"
    fi
}

need_whole_python() {
    "$python" -I -c 'import ensurepip, os, sysconfig, venv
os.stat(os.path.join(sysconfig.get_path("include"), "Python.h"))' 2>/dev/null ||
        die "$python lacks its venv or ensurepip module or its header files (Python.h): install them, or name another Python in POTOFS_PYTHON"
}

# ---- The virtual environment

pip() {
    # Debian's own compiler and pkg-config know where Debian's libraries are; others on PATH may not. The
    # variables that are unset or overridden would have pip install elsewhere or not at all.
    env -u PIP_TARGET -u PIP_PREFIX -u PIP_ROOT -u PIP_PYTHON -u PIP_DRY_RUN -u PIP_NO_DEPS \
        PIP_USER=0 PIP_DISABLE_PIP_VERSION_CHECK=1 PATH="/usr/bin:/bin:$PATH" \
        "$venv/bin/python" -m pip --quiet --no-input install "$@"
}

make_venv() {
    local -a groups
    local group
    read -r -a groups <<<"$stamp_groups"
    if ! venv_fits || [[ $python != "$stamp_python" ]]; then
        groups=()
        rm -f -- "$stamp" # first: without it nobody takes what is left for whole
        rm -rf -- "$venv"
        say "making $venv (this takes a minute or so)"
        quietly "could not make $venv (see above)" "$python" -I -m venv "$venv"
    else
        say "bringing $venv up to date"
        rm -f -- "$stamp"
    fi
    for group in "$@"; do
        [[ " ${groups[*]} " == *" $group "* ]] || groups+=("$group")
    done
    if ((${#groups[@]})); then
        # The first pip that knows --group.
        quietly "could not upgrade pip in $venv (see above)" pip 'pip>=25.1'
    fi
    quietly "could not install potofs into $venv (see above); the next start tries again" pip -e '.[redis]' "${groups[@]/#/--group=}"
    # Written last and at once: its presence says that everything before it was done.
    printf '%s\0' "$root" "$python" "${POTOFS_PYTHON-}" "${groups[*]}" "$project" >"$stamp.new"
    mv -f -- "$stamp.new" "$stamp"
}

make_ready() {
    local python
    cd -- "$root" || exit # pip reads pyproject.toml here
    if [[ ! -w $root || (-e $venv && ! -w $venv) ]] && ! venv_ready "$@"; then
        local owner
        owner=$(stat -c %U -- "$venv" 2>/dev/null || stat -c %U -- "$root")
        die "$venv is missing or out of date, and this user cannot write it;" \
            "run this as $owner, with $root writable, then start again: $(readlink -f -- "$0")"
    fi
    choose_python
    if on_debian; then
        need_packages
    else
        need_things
    fi
    # Another set-up may have made it while this one waited.
    if ! venv_ready "$@"; then
        need_whole_python
        make_venv "$@"
    fi
}

# ---- bun, whose npm package carries the program

setup_bun() {
    bun_ready || locked make_bun
}

bun_ready() { [[ -e $root/.tools/.complete ]] && "$bun" --version >/dev/null 2>&1; }

make_bun() {
    if bun_ready; then
        return
    fi
    [[ -w $root && (! -e $root/.tools || -w $root/.tools) ]] ||
        die "$root/.tools is missing or incomplete, and this user may not write it"
    say "installing bun into $root/.tools"
    rm -rf -- "$root/.tools"
    mkdir -- "$root/.tools"
    quietly "npm could not install bun (see above)" \
        npm install --prefix "$root/.tools" --include=optional --no-audit --no-fund bun
    # npm may be set not to run the installation scripts of packages.
    "$bun" --version >/dev/null 2>&1 ||
        quietly "bun's installation failed (see above)" node "$root/.tools/node_modules/bun/install.js"
    quietly "the installed bun does not run (see above)" "$bun" --version
    : >"$root/.tools/.complete"
}
