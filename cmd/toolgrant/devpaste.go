package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// paste is what another shell needs; a story runs it as it is printed.
func (d *dev) paste(self string) string {
	return fmt.Sprintf(`Everything is up, FOR DEVELOPMENT ONLY. Paste into another shell:

%sexport TOOLGRANT_URL=%s TOOLGRANT_DEV_DIR=%s

# The planner starts a task; the agent buys a grant for it, and calls the tool.
export TOOLGRANT_IDENTITY_TOKEN_FILE="$TOOLGRANT_DEV_DIR/planner.jwt"
task=$(toolgrant task start --kind monthly-report --agent corp/report-bot --ttl 30m)
export TOOLGRANT_IDENTITY_TOKEN_FILE="$TOOLGRANT_DEV_DIR/report-bot.jwt"
toolgrant grant --task "$task" --tool reports/export --ttl 5m --header |
  curl -sS -H @- --json '{"month":"2026-10"}' '%[4]s/export?format=csv'

# All of it around one command, by an agent that may do both.
(umask 077; toolgrant identity --agent ci-1 --group orchestrators --group reporting > "$TOOLGRANT_DEV_DIR/ci-1.jwt")
export TOOLGRANT_IDENTITY_TOKEN_FILE="$TOOLGRANT_DEV_DIR/ci-1.jwt"
toolgrant exec --kind monthly-report --tool reports/export --proxy %[4]s -- \
  sh -c 'http_proxy=$TOOLGRANT_HTTP_PROXY curl -sS --json "{\"month\":\"2026-10\"}" "%[4]s/export?format=pdf"'

# Files: policies to edit, logs of Envoy and the tool. Decisions follow, each
# with its id (d_…); it is told in words by: toolgrant explain ID
ls "$TOOLGRANT_DEV_DIR"

`, findMe(self), d.cfg.Broker.PublicURL, shellWord(d.dir), "http://"+d.cfg.Envoy.Listen)
}

// shellWord quotes a path for a shell, if that is needed.
func shellWord(s string) string {
	if strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-") == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// findMe is a shell line by which "toolgrant" is the program at the path self;
// none, where it is that already.
func findMe(self string) string {
	if found, err := exec.LookPath("toolgrant"); err == nil {
		a, errA := os.Stat(found)
		if b, errB := os.Stat(self); errA == nil && errB == nil && os.SameFile(a, b) {
			return ""
		}
	}
	dir, name := filepath.Split(self)
	if name == "toolgrant" && !strings.Contains(dir, ":") {
		return "export PATH=" + shellWord(filepath.Clean(dir)) + ":$PATH\n"
	}
	return "toolgrant() { " + shellWord(self) + " \"$@\"; }\n"
}
