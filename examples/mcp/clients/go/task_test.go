package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The token goes to the MCP server and to nobody else, also when a redirect leads
// there: an http.Client sends each hop through its transport.
func TestTheTokenGoesToItsServerAlone(t *testing.T) {
	show := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Header.Get("Authorization")) })
	other := httptest.NewServer(show)
	defer other.Close()
	mux := http.NewServeMux()
	mux.Handle("/mcp", show)
	mux.Handle("/away", http.RedirectHandler(other.URL, http.StatusTemporaryRedirect))
	server := httptest.NewServer(mux)
	defer server.Close()

	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("TOOLGRANT_TASK", "")
	t.Setenv("TOOLGRANT_BASELINE_TOKEN_FILE", token)
	client, err := taskClient(server.URL + "/mcp")
	if err != nil {
		t.Fatal(err)
	}
	for url, want := range map[string]string{server.URL + "/mcp": "Bearer secret", server.URL + "/away": "", other.URL: ""} {
		res, err := client.Post(url, "text/plain", strings.NewReader("x"))
		if err != nil {
			t.Fatal(err)
		}
		got, _ := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if string(got) != want {
			t.Errorf("%s saw %q, want %q", url, got, want)
		}
	}
}
