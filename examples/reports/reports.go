// Package reports is the reports example as a program may carry it: its files,
// and its tool server. The command in tool/ serves the tools on their own;
// `toolgrant dev` lays out the files and serves the tools itself.
package reports

import (
	"embed"
	"encoding/json"
	"log/slog"
	"net/http"
	"sort"
	"strings"
)

// Files are the configuration, the catalogue, the policies and a constraint, by
// their paths in this folder.
//
//go:embed toolgrant.yaml tools.yaml csv-only.json policies
var Files embed.FS

// maxBody bounds a request body, in bytes. Envoy's limit is the same.
const maxBody = 64 << 10

// Tools serves the three tools of the catalogue, which do nothing but say that
// they ran: one line of log for each. They know nothing of grants. Any other
// path or method is answered 404 or 405 and not logged: it ran nothing.
func Tools(log *slog.Logger) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /export", func(w http.ResponseWriter, r *http.Request) {
		var in struct {
			Month string `json:"month"`
		}
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody)).Decode(&in); err != nil {
			http.Error(w, "a JSON body with a month is needed", http.StatusBadRequest)
			return
		}
		format := r.URL.Query().Get("format")
		ran(log, r, "export", "month", in.Month, "format", format)
		answer(w, map[string]any{"tool": "export", "month": in.Month, "format": format, "rows": 42})
	})
	mux.HandleFunc("DELETE /archive", func(w http.ResponseWriter, r *http.Request) {
		ran(log, r, "purge")
		answer(w, map[string]any{"tool": "purge", "purged": true})
	})
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, r *http.Request) {
		ran(log, r, "health")
		answer(w, map[string]any{"tool": "health", "ok": true})
	})
	return mux
}

// ran logs a call that really ran: the tool, what the call door says of the
// grant it came under (the x-grant-ctx-* headers), and whether a credential
// came with it. None may: of an authorization header the log says only that it
// was there.
func ran(log *slog.Logger, r *http.Request, tool string, args ...any) {
	for _, name := range grantContext(r.Header) {
		args = append(args, name, strings.Join(r.Header[name], ","))
	}
	_, credential := r.Header["Authorization"]
	log.Info("ran", append([]any{"tool", tool, "authorization", credential}, args...)...)
}

// grantContext returns the names of the x-grant-ctx-* headers, sorted.
func grantContext(h http.Header) []string {
	var names []string
	for name := range h {
		if strings.HasPrefix(name, "X-Grant-Ctx-") {
			names = append(names, name)
		}
	}
	sort.Strings(names)
	return names
}

func answer(w http.ResponseWriter, v map[string]any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // fails only if the caller has gone
}
