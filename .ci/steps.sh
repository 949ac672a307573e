# For scripts that do everything even when an earlier step failed, so that one run tells everything: `step NAME COMMAND`,
# and `finish` at the end, which says how each went and how long it took. The exit code is 1 when any of them failed.

declare -a report=()
failed=0

step() {
    local name="$1" started=$SECONDS verdict=ok
    shift
    printf '\n=== %s: %s\n' "$name" "$*"
    "$@" || verdict="FAILED ($?)"
    [[ $verdict == ok ]] || failed=1
    report+=("$(printf '%-20s %4d s  %s' "$name" "$((SECONDS - started))" "$verdict")")
    printf '=== %s\n' "${report[-1]}"
}

finish() {
    printf '\n=== all, %d s\n' "$SECONDS"
    printf '%s\n' "${report[@]}"
    exit "$failed"
}
