#!/usr/bin/env bash
# Ends what a test run leaves behind, however the run itself ends: it holds the other end of our standard input.
#   janitor.sh DIR    reads `start GROUP` and `end GROUP` (process groups); at the end of input stops those still running, then removes DIR
set -u
declare -A groups
while read -r event group; do
  case $event in
    start) groups[$group]=running ;;
    end) unset "groups[$group]" ;;
  esac
done

signal() { for group in "${!groups[@]}"; do kill "-$1" -- "-$group" 2>/dev/null || unset "groups[$group]"; done; }
signal TERM
for _ in {1..50}; do
  signal 0
  [ ${#groups[@]} = 0 ] && break
  sleep 0.1
done
signal KILL
rm -rf "$1"
