#!/bin/sh
# hil-orchestrator-helper hold | status: sets the frequency governor `performance` while a measurement runs.
# A person installs it as root; whoever may run it can do this and nothing else:
#   sudo install -o root -g root -m 755 helper /usr/local/sbin/hil-orchestrator-helper
#   echo "$USER ALL=(root) NOPASSWD: /usr/local/sbin/hil-orchestrator-helper hold" |
#     sudo tee /etc/sudoers.d/hil-orchestrator
# hold: notes all governors, sets performance, prints `held`, waits for the end of its input, puts back what it noted.
PATH=/usr/sbin:/usr/bin:/sbin:/bin
export PATH
set -u

governors() { ls /sys/devices/system/cpu/cpufreq/policy*/scaling_governor 2>/dev/null ||
              ls /sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_governor 2>/dev/null; }

case "$#:${1:-}" in
1:status)
  for file in $(governors); do printf '%s %s\n' "$file" "$(cat "$file")"; done ;;
1:hold)
  noted=
  for file in $(governors); do
    read -r name < "$file" && noted="$noted$file $name
"
  done
  [ -n "$noted" ] || { echo "there is no scaling_governor here"; exit 1; }
  restore() { printf %s "$noted" | while read -r file name; do echo "$name" > "$file"; done; }
  trap '' HUP INT TERM PIPE  # the end of the input alone ends it: nothing else puts the governors back
  printf %s "$noted" | while read -r file name; do echo performance > "$file" || exit 1; done ||
    { restore; echo "performance was refused"; exit 1; }
  echo held
  cat > /dev/null
  restore ;;
*)
  echo "usage: hil-orchestrator-helper hold | status" >&2
  exit 2 ;;
esac
