package authz

import (
	"crypto/x509"
	"encoding/pem"
	"net/url"
	"slices"
	"testing"
	"time"

	"github.com/toolgrant/toolgrant/envoy/envoytest"
)

// FuzzPeer: a certificate counts only if it is one, and only by a URI or DNS name
// that is in it.
func FuzzPeer(f *testing.F) {
	ca := envoytest.NewCA(f)
	f.Add("spiffe://corp/bot", pemOf(f, ca, time.Now().Add(time.Hour), "spiffe://corp/bot"))
	f.Add("bot.internal", pemOf(f, ca, time.Now().Add(time.Hour), "bot.internal"))
	f.Add("CN=x", "-----BEGIN CERTIFICATE-----%0AAAAA%0A-----END CERTIFICATE-----")
	f.Fuzz(func(t *testing.T, name, certificate string) {
		end, err := peer{name: name, certificate: certificate}.end()
		if err != nil {
			return
		}
		text, err := url.PathUnescape(certificate)
		if err != nil {
			t.Fatal(err)
		}
		block, _ := pem.Decode([]byte(text))
		if block == nil {
			t.Fatal("no PEM")
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil || !cert.NotAfter.Equal(end) {
			t.Fatal(err, end)
		}
		if !slices.Contains(cert.DNSNames, name) && !slices.ContainsFunc(cert.URIs, func(u *url.URL) bool { return u.String() == name }) {
			t.Fatalf("%q is not in it", name)
		}
	})
}
