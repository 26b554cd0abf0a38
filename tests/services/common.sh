# Finds the services and tools of the tests. install and run source this file.

cache=${GEOROOM_TEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/georoom-tests}
[[ $cache = /* ]] || cache=$PWD/$cache
clients=$(cd "$(dirname "${BASH_SOURCE[0]}")/../clients" && pwd)
# Debian installs servers in folders that are not in the PATH of an ordinary user.
PATH=$PATH:/usr/local/sbin:/usr/sbin

die() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

# is_mysql PROGRAM: it is MySQL 8.4 or later. MariaDB calls its server mysqld too, but has other spatial types.
is_mysql() {
    local version
    version=$("$1" --version 2>/dev/null) || return 1
    [[ $version != *MariaDB* && $version =~ Ver\ ([0-9]+)\.([0-9]+) ]] || return 1
    ((BASH_REMATCH[1] * 100 + BASH_REMATCH[2] >= 804))
}

is_nginx() {
    "$1" -v >/dev/null 2>&1
}

# find CHECK CANDIDATE…: prints the first candidate that is a program and passes the check.
find_program() {
    local check=$1 candidate
    for candidate in "${@:2}"; do
        if candidate=$(command -v "$candidate") && "$check" "$candidate"; then
            printf '%s\n' "$candidate"
            return
        fi
    done
    return 1
}

find_mysqld() {
    find_program is_mysql ${TEST_MYSQLD:+"$TEST_MYSQLD"} mysqld "$cache/mysql-server-core/mysqld"
}

find_nginx() {
    find_program is_nginx ${TEST_NGINX:+"$TEST_NGINX"} nginx "$cache/nginx/nginx"
}

is_jq() {
    [[ $("$1" -n 1+1 2>/dev/null) = 2 ]]
}

find_jq() {
    find_program is_jq ${TEST_JQ:+"$TEST_JQ"} jq "$cache/jq/jq"
}

has_node() {
    command -v npm >/dev/null && node -e 'process.exitCode = parseInt(process.version.slice(1)) < 18 ? 1 : 0' 2>/dev/null
}

has_python() {
    python3 -m pip --version >/dev/null 2>&1
}

# has_python_clients GENERATION: the cache has the pinned versions.
has_python_clients() {
    cmp -s "$clients/python-$1.txt" "$cache/python-$1/.installed.txt"
}
