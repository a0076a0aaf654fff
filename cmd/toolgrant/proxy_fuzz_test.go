package main

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

// FuzzProxyTarget: whatever a request line says, only who knows the secret has a
// request passed on, and to the one origin.
func FuzzProxyTarget(f *testing.F) {
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Reached", r.Host)
	}))
	f.Cleanup(up.Close)
	to, err := url.Parse(up.URL)
	if err != nil {
		f.Fatal(err)
	}
	p, err := newProxy(to, headerFlag{"Authorization"}, func() string { return testToken })
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { p.listener.Close() })
	for _, uri := range []string{"/SECRET/x?y", "/SECRET", "/SECRET?x", "//SECRET/x", "/x", "http://elsewhere/SECRET/", "http://HOST/x"} {
		f.Add(uri)
	}
	f.Fuzz(func(t *testing.T, uri string) {
		uri = strings.NewReplacer("SECRET", p.secret, "HOST", to.Host).Replace(uri)
		u, err := url.ParseRequestURI(uri)
		if err != nil {
			return
		}
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.URL, r.RequestURI = u, uri
		r = r.WithContext(context.WithValue(r.Context(), peerKey{}, func() error { return nil }))
		w := httptest.NewRecorder()
		p.ServeHTTP(w, r)
		reached := w.Header().Get("X-Reached")
		if reached == "" {
			return
		}
		if first, _, _ := strings.Cut(strings.TrimPrefix(uri, "/"), "/"); reached != to.Host || u.IsAbs() || !strings.HasPrefix(first, p.secret) {
			t.Fatalf("%q reached %q", uri, reached)
		}
	})
}
