#!/bin/sh
# Debian packages that make more of the tests meaningful: the sandbox, the counter of system calls, a connection pooler.
# Where they cannot be installed, LogAct says what it does without them, and the tests test that.
missing=""
command -v bwrap >/dev/null 2>&1 || missing="$missing bubblewrap"
command -v strace >/dev/null 2>&1 || missing="$missing strace"
command -v pgbouncer >/dev/null 2>&1 || [ -x /usr/sbin/pgbouncer ] || missing="$missing pgbouncer"
[ -z "$missing" ] && exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
    echo "note: not installed:$missing (shell and Python tools stay off without bubblewrap)" >&2
    exit 0
fi
# shellcheck disable=SC2086
(apt-get install -y -qq $missing || { apt-get update -qq && apt-get install -y -qq $missing; }) >/dev/null 2>&1 ||
    echo "note: could not install:$missing" >&2
# the tests start their own pooler; the service that came along is not wanted
case "$missing" in *pgbouncer*) systemctl disable --now pgbouncer >/dev/null 2>&1 ;; esac
exit 0
