# Sourced by what builds guests and laboratories. $cache is where the artifacts go.

# artifact NAME RECIPE INPUT... : runs RECIPE in an empty directory when the inputs (or this script) changed.
artifact() {
    local name=$1 recipe=$2 stamp
    shift 2
    stamp=$({ declare -f "$recipe"; printf '%s\n' "$@"; } | sha256sum | cut -d' ' -f1)
    [ -e "$cache/$name" ] && [ "$(cat "$cache/$name.stamp" 2>/dev/null)" = "$stamp" ] && return
    echo "${0##*/perf/}: building $name" >&2
    rm -f "$cache/$name.stamp" # a recipe cut short must not leave an old stamp behind
    rm -rf "$cache/work"
    mkdir "$cache/work"
    # Its own shell: `set -e` inside, and whatever directory it changes to is its own.
    (cd "$cache/work" && "$recipe")
    rm -rf "$cache/work"
    echo "$stamp" >"$cache/$name.stamp"
}

apt_get() { DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 "$@" >/dev/null; }
