package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/toolgrant/toolgrant/envoy/envoytest"
)

// TestStories plays testdata/script with the program itself, the example's tool
// and the real Envoy.
func TestStories(t *testing.T) {
	tool := filepath.Join(t.TempDir(), "reports-tool")
	if out, err := exec.Command("go", "build", "-o", tool, "../../examples/reports/tool").CombinedOutput(); err != nil {
		t.Fatalf("building the tool: %v\n%s", err, out)
	}
	envoyBinary := envoytest.Binary(t)
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			env.Setenv("ENVOY_BIN", envoyBinary)
			env.Setenv("TOOL_BIN", tool)
			for _, name := range []string{"TOOL", "BROKER", "FRONT", "ADMIN"} {
				l, err := listenSomewhere()
				if err != nil {
					return err
				}
				defer l.Close() // held until all are chosen
				env.Setenv(name, l.Addr().String())
			}
			return copyExample(env)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"http": httpCommand, "until": untilCommand, "listens": listensCommand,
		},
	})
}

// copyExample puts examples/reports into the script's folder, with the script's
// addresses.
func copyExample(env *testscript.Env) error {
	r := strings.NewReplacer(
		"127.0.0.1:8080", env.Getenv("TOOL"), "127.0.0.1:8181", env.Getenv("BROKER"), "127.0.0.1:9190", env.Getenv("ADMIN"),
		"127.0.0.1:10000", env.Getenv("FRONT"), "listen: 127.0.0.1:8182", "listen: unix://"+filepath.Join(env.WorkDir, "authz.sock"),
	)
	for _, pattern := range []string{"*.yaml", "policies/*"} {
		files, err := filepath.Glob("../../examples/reports/" + pattern)
		if err != nil {
			return err
		}
		for _, f := range files {
			text, err := os.ReadFile(f)
			if err != nil {
				return err
			}
			to := filepath.Join(env.WorkDir, strings.TrimPrefix(f, "../../examples/reports/"))
			if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
				return err
			}
			if err := os.WriteFile(to, []byte(r.Replace(string(text))), 0o600); err != nil {
				return err
			}
		}
	}
	return nil
}

// httpCommand sends a request and checks the status:
//
//	http STATUS METHOD URL [TOKENFILE|-] [BODY]
//
// The answer's body is the script's stdout.
func httpCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 {
		ts.Fatalf("usage: http STATUS METHOD URL [TOKENFILE|-] [BODY]")
	}
	token := ""
	if len(args) > 3 && args[3] != "-" {
		token = ts.ReadFile(args[3])
	}
	if status, body := send(ts, token, args); status != args[0] {
		ts.Fatalf("%s %s: got %s, want %s: %s", args[1], args[2], status, args[0], body)
	}
}

// untilCommand is http, again and again until the file with the token is there
// and the status is the wanted one.
func untilCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 4 {
		ts.Fatalf("usage: until STATUS METHOD URL TOKENFILE [BODY]")
	}
	last := "no " + args[3]
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) { // between two looks
		token, err := os.ReadFile(ts.MkAbs(args[3]))
		if err != nil {
			continue
		}
		if last, _ = send(ts, string(token), args); last == args[0] {
			return
		}
	}
	ts.Fatalf("%s %s: %s to the last, and never %s", args[1], args[2], last, args[0])
}

// send sends the request that the command names.
func send(ts *testscript.TestScript, token string, args []string) (status, body string) {
	if len(args) > 4 {
		body = args[4]
	}
	req, err := http.NewRequest(args[1], args[2], strings.NewReader(body))
	ts.Check(err)
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(token))
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := http.DefaultClient.Do(req)
	ts.Check(err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	ts.Check(err)
	fmt.Fprint(ts.Stdout(), string(text))
	return fmt.Sprint(resp.StatusCode), string(text)
}

// listensCommand waits until somebody listens at each address.
func listensCommand(ts *testscript.TestScript, _ bool, args []string) {
	deadline := time.Now().Add(30 * time.Second)
	for _, addr := range args {
		for {
			c, err := net.Dial("tcp", addr)
			if err == nil {
				c.Close()
				break
			}
			if time.Now().After(deadline) {
				ts.Fatalf("nobody listens at %s: %v", addr, err)
			}
			time.Sleep(10 * time.Millisecond) // between two looks
		}
	}
}
