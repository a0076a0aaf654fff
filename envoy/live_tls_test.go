package envoy

import (
	"crypto/tls"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/toolgrant/toolgrant/envoy/envoytest"
)

// tlsClient calls with the certificate of the given files, or with none.
func tlsClient(t *testing.T, ca *envoytest.CA, files ...string) *http.Client {
	t.Helper()
	// The same cache for all connections of a client: it would resume.
	config := &tls.Config{RootCAs: ca.Pool, ServerName: "tools.internal", ClientSessionCache: tls.NewLRUClientSessionCache(8)}
	if len(files) == 2 {
		pair, err := tls.LoadX509KeyPair(files[0], files[1])
		if err != nil {
			t.Fatal(err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	transport := &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 20 * time.Second}
}

func (w *world) export(hc *http.Client) (*http.Response, error) {
	req, err := http.NewRequest("POST", "https://"+w.addr+"/export", strings.NewReader("{}"))
	if err != nil {
		return nil, err
	}
	req.Header.Set("X-Forwarded-Client-Cert", "URI=spiffe://corp/root")
	resp, err := hc.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return resp, err
}

// TestLiveTLS: what the check is told of a client's certificate, and that it is
// told of none that was not verified.
func TestLiveTLS(t *testing.T) {
	ca, stranger := envoytest.NewCA(t), envoytest.NewCA(t)
	soon := time.Now().Add(time.Hour)
	o := ListenerTLS{ClientCAFile: ca.File}
	o.CertFile, o.KeyFile = ca.Issue(t, soon, "tools.internal")
	w := start(t, func(opts *Options) { opts.TLS = o })
	issue := func(by *envoytest.CA, end time.Time, names ...string) []string {
		cert, key := by.Issue(t, end, names...)
		return []string{cert, key}
	}
	for _, tc := range []struct {
		name      string
		files     []string
		refused   bool
		principal string
		shown     bool // a certificate reaches the check
	}{
		{name: "no certificate"},
		{name: "a URI and a name", files: issue(ca, soon, "bot.internal", "spiffe://corp/bot"), principal: "spiffe://corp/bot", shown: true},
		{name: "a name alone", files: issue(ca, soon, "bot.internal"), principal: "bot.internal", shown: true},
		// Envoy takes the subject then, which is no name to rely on: the door
		// compares with what is in the certificate.
		{name: "a subject alone", files: issue(ca, soon), principal: "CN=test", shown: true},
		{name: "of another CA", files: issue(stranger, soon, "spiffe://corp/bot"), refused: true},
		{name: "its time is over", files: issue(ca, time.Now().Add(-time.Minute), "spiffe://corp/bot"), refused: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w.reset(allow())
			hc := tlsClient(t, ca, tc.files...)
			resp, err := w.export(hc)
			checks, calls := w.seen()
			if tc.refused {
				if err == nil || len(checks)+len(calls) != 0 {
					t.Fatalf("error %v, %d checks, %d calls; want an error and none", err, len(checks), len(calls))
				}
				return
			}
			if err != nil || resp.StatusCode != 200 || resp.ProtoMajor != 2 || len(checks) != 1 || len(calls) != 1 {
				t.Fatalf("%v %v, %d checks, %d calls", resp, err, len(checks), len(calls))
			}
			from := checks[0].GetAttributes().GetSource()
			if from.GetPrincipal() != tc.principal || (from.GetCertificate() != "") != tc.shown {
				t.Errorf("principal %q, certificate %.40q", from.GetPrincipal(), from.GetCertificate())
			}
			if text, err := url.QueryUnescape(from.GetCertificate()); tc.shown && (err != nil || !strings.HasPrefix(text, "-----BEGIN CERTIFICATE-----")) {
				t.Errorf("certificate %.40q", from.GetCertificate())
			}
			if xfcc := calls[0].header.Get("X-Forwarded-Client-Cert"); xfcc != "" {
				t.Errorf("x-forwarded-client-cert: %s", xfcc)
			}
			hc.CloseIdleConnections()
			if resp, err = w.export(hc); err != nil || resp.TLS.DidResume {
				t.Errorf("a second connection: error %v, or it resumed the first", err)
			}
		})
	}

	t.Run("required", func(t *testing.T) {
		w := start(t, func(opts *Options) { opts.TLS = o; opts.TLS.RequireClientCert = true })
		if resp, err := w.export(tlsClient(t, ca)); err == nil {
			t.Errorf("without a certificate: %s", resp.Status)
		}
		if checks, _ := w.seen(); len(checks) != 0 {
			t.Errorf("%d checks", len(checks))
		}
		if resp, err := w.export(tlsClient(t, ca, issue(ca, soon, "spiffe://corp/bot")...)); err != nil || resp.StatusCode != 200 {
			t.Errorf("with one: %v %v", resp, err)
		}
	})
	t.Run("none asked for", func(t *testing.T) {
		w := start(t, func(opts *Options) { opts.TLS = ListenerTLS{CertFile: o.CertFile, KeyFile: o.KeyFile} })
		resp, err := w.export(tlsClient(t, ca, issue(ca, soon, "spiffe://corp/bot")...))
		checks, _ := w.seen()
		if err != nil || resp.StatusCode != 200 || len(checks) != 1 || checks[0].GetAttributes().GetSource().GetPrincipal() != "" {
			t.Errorf("%v %v %v", resp, err, checks)
		}
	})
}
