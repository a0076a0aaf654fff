package main

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/toolgrant/toolgrant/envoy"
	"github.com/toolgrant/toolgrant/envoy/envoytest"
	"github.com/toolgrant/toolgrant/token"
)

// openTarget is a world whose broker signs with alg.
func openTarget(t *testing.T, alg string, change ...func(*world)) *target {
	t.Helper()
	w := layOut(t)
	conf, err := os.ReadFile(filepath.Join(w.dir, "toolgrant.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if err := w.write("toolgrant.yaml", strings.Replace(string(conf), "alg: EdDSA", "alg: "+alg, 1)); err != nil {
		t.Fatal(err)
	}
	for _, f := range change {
		f(w)
	}
	w.load()
	w.serve()
	w.startEnvoy()
	g := &target{world: w}
	g.inTask = w.task()
	tok := w.export(g.inTask)
	g.token, g.grant = tok.AccessToken, tok.Grants[0].ID
	return g
}

// TestThreatsToToken sends the threat list's tokens through real Envoy to a
// `toolgrant serve`. They are made with the broker's own key wherever that is
// what the row asks for.
func TestThreatsToToken(t *testing.T) {
	for _, alg := range []string{token.EdDSA, token.ES256} {
		t.Run(alg, func(t *testing.T) {
			w := openTarget(t, alg)
			f := newForger(t, w.cfg.Keys.Dir, w.token)
			attacker, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer attacker.Close()
			var connections atomic.Int32
			go func() {
				for {
					conn, err := attacker.Accept()
					if err != nil {
						return
					}
					connections.Add(1)
					conn.Close()
				}
			}()
			var attacks []attack
			bad := func(row string, tokens map[string]string) {
				for _, name := range slices.Sorted(maps.Keys(tokens)) {
					attacks = append(attacks, attack{name: row + " " + name, fields: bearer(tokens[name]), body: october, want: "401", oauth: "invalid_token"})
				}
			}
			attacks = append(attacks,
				attack{name: "T00 the genuine token", fields: bearer(w.token), body: october, want: "200"},
				attack{name: "T00 as the forger makes it", fields: bearer(f.claim("", "")), body: october, want: "200"})
			bad("T01", f.unsigned())
			bad("T02", f.publicKeyAsSecret(get(t, w.broker+"/.well-known/jwks.json")))
			bad("T03", f.algSwapped())
			bad("T04", f.embeddedKey("http://"+attacker.Addr().String()))
			bad("T05", f.keyIDs())
			bad("T06", f.critical())
			bad("T07", f.otherSerialisations())
			bad("T11", f.otherAudiences())
			bad("T12", f.otherTypes(w.identity("report-bot", "toolgrant", "reporting")))
			bad("T14", f.twice())
			bad("T16", f.respelt(w.token))
			attacks = append(attacks, w.tooLarge(f)...)
			attacks = append(attacks, w.otherTools(t)...)
			attacks = append(attacks, w.severalPlaces()...)
			covers(t, attacks, []string{"T01", "T02", "T03", "T04", "T05", "T06", "T07", "T08", "T11", "T12", "T13", "T14", "T15", "T16"})
			w.hold(t, attacks)
			w.times(t, f)

			if n := connections.Load(); n != 0 {
				t.Errorf("T04: %d connections to where a token pointed", n)
			}
			// T16: what is revoked is revoked in every spelling.
			if err := w.planner().Revoke(t.Context(), w.grant); err != nil {
				t.Fatal(err)
			}
			attacks = []attack{{name: "T16 revoked", fields: bearer(w.token), body: october, want: "403", oauth: "insufficient_scope"}}
			bad("T16 revoked, ", f.respelt(w.token))
			w.hold(t, attacks)
		})
	}
}

// tooLarge are tokens over 8 kB, up to where Envoy takes no more headers.
func (w *target) tooLarge(f *forger) []attack {
	padded := func(n int) string {
		return f.sign(with(f.header, "", ""), with(f.payload, "", "")+strings.Repeat(" ", n))
	}
	var attacks []attack
	for name, token := range map[string]string{
		"over 8 kB, signed": padded(8_000), "25 kB, signed": padded(18_000), "8,000 dots": strings.Repeat(".", 8_000), "30,000 dots": strings.Repeat(".", 30_000),
		"30 kB without a dot": strings.Repeat("a", 30_000),
	} {
		attacks = append(attacks, attack{name: "T08 " + name, fields: bearer(token), body: october, want: "401", oauth: "invalid_token"})
	}
	for name, token := range map[string]string{
		"1 MB, signed": padded(1 << 20), "10^5 dots": strings.Repeat(".", 100_000), "a kid of 100 kB": f.head("kid", quote(strings.Repeat("k", 100_000))),
	} {
		attacks = append(attacks, attack{name: "T08 " + name, fields: bearer(token), body: october, want: "431 ended"})
	}
	return attacks
}

// otherTools are grants where they are none; for the whole product see
// TestCrossProduct.
func (w *target) otherTools(t *testing.T) []attack {
	stranger := w.identity("report-bot", "https://reports.internal", "reporting")
	return []attack{
		{name: "T13 the grant of one tool, at another", method: "DELETE", path: "/archive", fields: bearer(w.token)[:2], want: "403", oauth: "insufficient_scope"},
		{name: "T13 no grant at all", fields: bearer(stranger), body: october, want: "403", oauth: "insufficient_scope"},
	}
}

// severalPlaces are all combinations of where a token may stand, and two in one
// place.
func (w *target) severalPlaces() []attack {
	const form = "application/x-www-form-urlencoded"
	var attacks []attack
	for _, query := range []bool{false, true} {
		for _, header := range []bool{false, true} {
			for _, body := range []string{"", "JSON", "form"} {
				a := attack{name: fmt.Sprintf("T15 header %v, query %v, body %s", header, query, body), path: exportCSV, body: october, fields: []string{"content-type", "application/json"}}
				if header {
					a.fields = bearer(w.token)
				}
				if query {
					a.path += "&access_token=" + w.token
				}
				switch body {
				case "JSON":
					a.body = `{"month":"2026-10","access_token":"` + w.token + `"}`
				case "form":
					a.body, a.fields[len(a.fields)-1] = "access_token="+w.token, form
				}
				switch {
				case query: // more than one place, or one that is not read
					a.want, a.oauth = "401", "invalid_request"
				case !header:
					a.want = "401"
				case body == "": // one place
					a.want = "200"
				case body == "JSON": // an argument that nobody declared
					a.want = "403"
				default:
					a.want = "415"
				}
				attacks = append(attacks, a)
			}
		}
	}
	add := func(name string, fields ...string) {
		attacks = append(attacks, attack{name: "T15 " + name, fields: append(fields, "content-type", "application/json"), body: october, want: "401", oauth: "invalid_request"})
	}
	good := "Bearer " + w.token
	add("two headers", "authorization", good, "authorization", good)
	add("two, the first is junk", "authorization", "Bearer x", "authorization", good)
	add("two, the last is junk", "authorization", good, "authorization", "Bearer x")
	add("two, one of another scheme", "authorization", good, "authorization", "Basic eDp5")
	add("three, apart", "authorization", good, "accept", "*/*", "authorization", good, "accept-language", "de", "authorization", good)
	add("Bearer twice in one", "authorization", good+" "+good)
	add("joined with a comma", "authorization", good+", "+good)
	add("joined, without a blank", "authorization", good+","+w.token)
	// Envoy leaves an empty one out, so that there is one credential, and one reading.
	return append(attacks, attack{name: "T15 two, one of them empty", fields: append(bearer(w.token), "authorization", ""), body: october, want: "200 401"})
}

// times are T09 and T10. Each is signed in the moment in which it is sent, and
// alone: the rows are about seconds.
func (w *target) times(t *testing.T, f *forger) {
	t.Helper()
	at := func(d time.Duration) string { return fmt.Sprint(time.Now().Add(d).Unix()) }
	old := *f // whose window has long begun
	old.payload = maps.Clone(f.payload)
	old.payload["nbf"], old.payload["iat"] = json.RawMessage(at(-time.Hour)), json.RawMessage(at(-time.Hour))
	try := func(name, token, want, oauth string) {
		t.Helper()
		w.hold(t, []attack{{name: name, fields: bearer(token), body: october, want: want, oauth: oauth}})
	}
	try("T09 exp passed by 1 s", old.claim("exp", at(-time.Second)), "401", "invalid_token")
	try("T09 exp in this second", old.claim("exp", at(0)), "401", "invalid_token")
	try("T09 exp in a minute", old.claim("exp", at(time.Minute)), "200", "")
	for _, value := range []string{
		"", "null", `"4000000000"`, "1e400", "-1", "0", "9223372036854775808", "9223372036854775807", "18446744075509551676",
		"4000000000.5", "4e9", "NaN", "Infinity", "true", "[4000000000]",
	} {
		try("T09 exp "+value, old.claim("exp", value), "401", "invalid_token")
	}
	for _, name := range []string{"nbf", "iat"} {
		try("T10 "+name+" 4 s ahead", f.claim(name, at(4*time.Second)), "200", "")
		try("T10 "+name+" a minute ahead", f.claim(name, at(time.Minute)), "401", "invalid_token")
		for _, value := range []string{"", "null", `"1"`, "1e400", "-1", "9223372036854775808"} {
			try("T10 "+name+" "+value, f.claim(name, value), "401", "invalid_token")
		}
		w.justAhead(t, name, f)
	}
}

// justAhead holds that 7 s ahead are too far; where the machine was so slow that
// they were no longer when it was judged, it asks again.
func (w *target) justAhead(t *testing.T, name string, f *forger) {
	t.Run("T10 "+name+" 7 s ahead", func(t *testing.T) {
		for range 20 {
			begin := time.Now().Add(7 * time.Second).Truncate(time.Second)
			w.sent++
			m := mark(w.sent - 1)
			a := attack{fields: bearer(f.claim(name, fmt.Sprint(begin.Unix()))), body: october, want: "401", oauth: "invalid_token"}
			got := a.send(t, w.front, overHTTP2, m)
			if time.Until(begin) > token.Skew {
				w.judge(t, a, got, m)
				return
			}
			if got.status == 200 {
				w.ran++
			}
		}
		t.Error("it always took longer than that second")
	})
}

// TestRetiredKey (T05): a token of a key that was taken away is refused within
// seconds, while the process goes on, and its grant lives.
func TestRetiredKey(t *testing.T) {
	w := openTarget(t, token.EdDSA)
	f := newForger(t, w.cfg.Keys.Dir, w.token)
	w.wantCall(w.token, 200, "")
	if err := token.AddKey(w.cfg.Keys.Dir, token.EdDSA, time.Time{}); err != nil {
		t.Fatal(err)
	}
	w.until("the new key is in use", func() bool {
		return strings.Count(get(t, w.broker+"/.well-known/jwks.json"), `"kid"`) == 2
	})
	w.wantCall(w.token, 200, "") // its key was not taken away yet
	if err := os.Remove(filepath.Join(w.cfg.Keys.Dir, f.text(f.header["kid"])+".jwk")); err != nil {
		t.Fatal(err)
	}
	w.until("the old key is out of use", func() bool { return w.call(w.token, "POST", exportCSV, october).status == 401 })
	w.wantCall(w.token, 401, "bad_credential")
	next := w.export(w.task()).AccessToken
	if g := newForger(t, w.cfg.Keys.Dir, next); string(g.header["kid"]) == string(f.header["kid"]) {
		t.Error("the old key signs")
	}
	w.wantCall(next, 200, "")
}

// TestTokenOfAnotherCertificate (T13): a token stands beside a client certificate,
// in TLS to a real Envoy. RFC 8705, Section 3 has 401 for one that is not its
// agent's.
func TestTokenOfAnotherCertificate(t *testing.T) {
	w := layOut(t)
	w.serve()
	ca, soon := envoytest.NewCA(t), time.Now().Add(time.Hour)
	o := w.envoyOptions()
	o.TLS.CertFile, o.TLS.KeyFile = ca.Issue(t, soon, "tools.internal")
	o.TLS.ClientCAFile = ca.File
	config, err := envoy.Config(o)
	if err != nil {
		t.Fatal(err)
	}
	w.envoy = envoytest.Start(t, config)
	w.front = "https://" + w.envoy.Listener(t, "toolgrant")
	tok := w.export(w.task()).AccessToken
	for _, proto := range []string{"HTTP/1.1", "HTTP/2"} {
		for _, tc := range []struct {
			name    string // of the certificate; "": none
			allowed bool
		}{{"report-bot", true}, {"other-bot", false}, {"spiffe://corp/report-bot", false}, {"", true}} {
			t.Run("T13 certificate of "+tc.name+"/"+proto, func(t *testing.T) {
				w := *w
				w.t = t
				conf := &tls.Config{RootCAs: ca.Pool, ServerName: "tools.internal"}
				if tc.name != "" {
					pair, err := tls.LoadX509KeyPair(ca.Issue(t, soon, tc.name))
					if err != nil {
						t.Fatal(err)
					}
					conf.Certificates = []tls.Certificate{pair}
				}
				p := new(http.Protocols)
				p.SetHTTP1(proto == "HTTP/1.1")
				p.SetHTTP2(proto == "HTTP/2")
				tr := &http.Transport{TLSClientConfig: conf, Protocols: p}
				defer tr.CloseIdleConnections()
				before := w.tool.calls()
				a, err := w.try(&http.Client{Transport: tr}, tok, "POST", exportCSV, october)
				if err != nil {
					t.Fatal(err)
				}
				if tc.allowed {
					w.check(a, before, 200, "")
					return
				}
				w.check(a, before, 403, "no_grant")
				if got := a.header.Get("Www-Authenticate"); !strings.HasPrefix(got, `Bearer error="insufficient_scope", scope="reports/export", resource_metadata="https://`) {
					t.Errorf("WWW-Authenticate: %q", got)
				}
			})
		}
	}
}
