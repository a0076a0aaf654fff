package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/toolgrant/toolgrant/envoy/envoytest"
)

// TestTLSEverywhere: the broker with TLS and client certificates, the call door
// over TCP with mutual TLS, and Envoy with TLS towards agents; the command line
// buys a grant and a call goes through. Whoever has no certificate gets nowhere.
func TestTLSEverywhere(t *testing.T) {
	w := layOut(t)
	ca := envoytest.NewCA(t)
	end := time.Now().Add(time.Hour)
	brokerCert, brokerKey := ca.Issue(t, end, "127.0.0.1")
	authzCert, authzKey := ca.Issue(t, end, "authz.internal")
	envoyCert, envoyKey := ca.Issue(t, end, "127.0.0.1")
	callerCert, callerKey := ca.Issue(t, end, "envoy.internal")
	authzAt := fmt.Sprintf("127.0.0.1:%d", envoytest.FreePort(t))
	text, err := os.ReadFile(filepath.Join(w.dir, "toolgrant.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	conf := string(text)
	for from, to := range map[string]string{
		"  issuer: http://127": "  tls: {cert: " + brokerCert + ", key: " + brokerKey + ", client_ca: " + ca.File + "}\n  issuer: https://127",
		w.cfg.Authz.Listen:     authzAt + "\n  tls: {cert: " + authzCert + ", key: " + authzKey + ", client_ca: " + ca.File + "}",
		"listen: 127.0.0.1:0": "listen: 127.0.0.1:0\n  tls: {cert: " + envoyCert + ", key: " + envoyKey + "}" +
			"\n  authz_tls: {cert: " + callerCert + ", key: " + callerKey + ", ca: " + ca.File + ", server_name: authz.internal}",
	} {
		if !strings.Contains(conf, from) {
			t.Fatalf("the configuration does not hold %q", from)
		}
		conf = strings.Replace(conf, from, to, 1)
	}
	if err := w.write("toolgrant.yaml", conf); err != nil {
		t.Fatal(err)
	}
	w.load()
	w.serve()
	w.startEnvoy()
	w.broker = "https" + strings.TrimPrefix(w.broker, "http")
	w.front = "https" + strings.TrimPrefix(w.front, "http")

	certs := []string{"--url", w.broker, "--ca", ca.File, "--cert", callerCert, "--key", callerKey}
	planner := tokenFile(t, w.identity("planner", "toolgrant", "orchestrators"), 0o600)
	bot := tokenFile(t, w.identity("report-bot", "toolgrant", "reporting"), 0o600)
	started := toolgrant(t, "", append([]string{"task", "start", "--kind", "monthly-report", "--agent", "corp/report-bot", "--identity-token-file", planner}, certs...)...)
	if started.code != exitDone {
		t.Fatalf("%+v", started)
	}
	bought := toolgrant(t, "", append([]string{"grant", "--task", strings.TrimSpace(started.stdout), "--tool", "reports/export", "--identity-token-file", bot}, certs...)...)
	if bought.code != exitDone {
		t.Fatalf("%+v", bought)
	}
	pool := x509.NewCertPool()
	pem, err := os.ReadFile(ca.File)
	if err != nil || !pool.AppendCertsFromPEM(pem) {
		t.Fatal(err)
	}
	hc := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}
	got, err := w.try(hc, strings.TrimSpace(bought.stdout), "POST", exportCSV, october)
	if err != nil || got.status != http.StatusOK || w.tool.calls() != 1 {
		t.Fatalf("%+v %v, and the tool ran %d times", got, err, w.tool.calls())
	}

	for name, args := range map[string][]string{
		"no certificate of its own": {"--ca", ca.File},
		"another's idea of a CA":    {"--cert", callerCert, "--key", callerKey},
		"half a certificate":        {"--ca", ca.File, "--cert", callerCert},
	} {
		r := toolgrant(t, "", append([]string{"task", "start", "--kind", "x", "--url", w.broker, "--identity-token-file", planner}, args...)...)
		if r.code != exitFailed && r.code != exitUsage || r.stdout != "" {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

// TestCertificatesAreFollowed: a renewed certificate is taken up, and one that
// cannot be read leaves the last good one in force.
func TestCertificatesAreFollowed(t *testing.T) {
	ca := envoytest.NewCA(t)
	dir := t.TempDir()
	files := TLSConfig{Cert: filepath.Join(dir, "cert"), Key: filepath.Join(dir, "key")}
	put := func(name string) {
		cert, key := ca.Issue(t, time.Now().Add(time.Hour), name)
		for from, to := range map[string]string{cert: files.Cert, key: files.Key} {
			text, err := os.ReadFile(from)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(to, text, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	put("first.internal")
	c, err := openCertificates(files, zap.NewNop(), "h2")
	if err != nil {
		t.Fatal(err)
	}
	name := func() string {
		conf, err := c.config().GetConfigForClient(nil)
		if err != nil {
			t.Fatal(err)
		}
		leaf, err := x509.ParseCertificate(conf.Certificates[0].Certificate[0])
		if err != nil {
			t.Fatal(err)
		}
		return leaf.DNSNames[0]
	}
	if name() != "first.internal" {
		t.Fatal(name())
	}
	put("second-one.internal") // of another length, whatever the clock's grain
	c.refresh()
	if name() != "second-one.internal" {
		t.Errorf("a renewed certificate: %s", name())
	}
	if err := os.WriteFile(files.Cert, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	c.refresh()
	if name() != "second-one.internal" {
		t.Errorf("with a broken one: %s", name())
	}
	put("third-of-them.internal")
	c.refresh()
	if name() != "third-of-them.internal" {
		t.Errorf("mended: %s", name())
	}
	if err := os.Chmod(files.Key, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := openCertificates(files, zap.NewNop()); err == nil || !strings.Contains(err.Error(), "chmod") {
		t.Errorf("a key that all can read: %v", err)
	}
}

// TestCheckFindsWhatServeWouldRefuse: what --check calls in order, serve takes.
func TestCheckFindsWhatServeWouldRefuse(t *testing.T) {
	for name, tc := range map[string]struct{ from, to, want string }{
		"no TLS files":         {"  issuer: http://127", "  tls: {cert: no.pem, key: no.key}\n  issuer: https://127", "broker.tls: "},
		"no folder to record":  {"file: run/audit.jsonl", "file: nowhere/audit.jsonl", "audit.file: the folder of"},
		"no folder for a door": {"listen: unix://", "listen: unix:///nowhere", "authz.listen: the folder of"},
	} {
		t.Run(name, func(t *testing.T) {
			w := layOut(t)
			file := filepath.Join(w.dir, "toolgrant.yaml")
			if r := toolgrant(t, "", "serve", "--check", "--config", file); r.code != exitDone {
				t.Fatalf("as it is: %+v", r)
			}
			if err := w.edit("toolgrant.yaml", tc.from, tc.to); err != nil {
				t.Fatal(err)
			}
			for _, args := range [][]string{{"serve", "--check"}, {"serve"}} {
				if r := toolgrant(t, "", append(args, "--config", file)...); r.code != exitUsage || !strings.Contains(r.stderr, tc.want) {
					t.Errorf("%v: %+v", args, r)
				}
			}
		})
	}
}
