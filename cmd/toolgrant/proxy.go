package main

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"time"
)

// proxy adds a token to the requests of one command, and passes them on to one
// origin. It listens on loopback, where every user of the machine can reach
// it: whoever uses it must show its secret, as the first segment of the path
// or, as to a proxy, as the user.
//
// The token goes to the origin alone, in the place of what the client may have
// in its header, and never into a log or an error.
type proxy struct {
	listener net.Listener
	to       *url.URL // scheme and host
	header   headerFlag
	token    func() string
	secret   string
	forward  *httputil.ReverseProxy
	own      func(local, remote netip.AddrPort) error // nil error: this user's own connection
}

// origin reads the URL of an origin: scheme and host, and nothing else. In the
// clear the token goes over loopback only.
func origin(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Host == "" || u.Hostname() == "":
		return nil, errors.New("write an origin, such as http://127.0.0.1:10000")
	case u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || strings.Trim(u.Path, "/") != "":
		return nil, errors.New("write an origin alone: no user, path or query")
	case u.Scheme == "http" && !isLoopback(strings.ToLower(u.Hostname())):
		return nil, errors.New("plain http is for loopback only, the token would travel in the clear; use https")
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, errors.New("the scheme must be https, or http on loopback")
	}
	return &url.URL{Scheme: u.Scheme, Host: strings.ToLower(u.Host)}, nil
}

func newProxy(to *url.URL, header headerFlag, token func() string) (*proxy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("proxy: %w", err)
	}
	p := &proxy{listener: l, to: to, header: header, token: token, secret: strings.ToLower(rand.Text()), own: ownPeer}
	p.forward = &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host, r.Out.Host = to.Scheme, to.Host, to.Host
			r.Out.URL.RawQuery = r.In.URL.RawQuery // as it came, also where it does not parse
			r.Out.Header.Set(header.name, header.value(token()))
		},
		// Its own, without a proxy: the environment's would get the token.
		Transport: &http.Transport{
			DisableCompression: true, ForceAttemptHTTP2: true,
			TLSHandshakeTimeout: 10 * time.Second, IdleConnTimeout: 60 * time.Second,
		},
		ModifyResponse: p.ownLocation,
		FlushInterval:  -1, // streams are passed on as they come
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			http.Error(w, fmt.Sprintf("toolgrant exec: no answer from %s: %v", to, err), http.StatusBadGateway)
		},
		ErrorLog: log.New(io.Discard, "", 0),
	}
	return p, nil
}

// base is the URL to use in the origin's place.
func (p *proxy) base() string { return "http://" + p.listener.Addr().String() + "/" + p.secret }

// asProxy is the URL for a client that is told its proxy.
func (p *proxy) asProxy() string { return "http://" + p.secret + "@" + p.listener.Addr().String() }

// run serves until ctx ends; then it cuts what is still under way.
func (p *proxy) run(ctx context.Context) {
	s := &http.Server{
		Handler: p, DisableGeneralOptionsHandler: true, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 60 * time.Second,
		MaxHeaderBytes: 64 << 10, ErrorLog: log.New(io.Discard, "", 0),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			// Looked up by who waits for it, and not where connections are accepted.
			return context.WithValue(ctx, peerKey{}, sync.OnceValue(func() error { return p.foreign(c) }))
		},
	}
	stop := context.AfterFunc(ctx, func() { _ = s.Close() })
	defer stop()
	_ = s.Serve(p.listener) // ends by Close alone
	p.forward.Transport.(*http.Transport).CloseIdleConnections()
}

// peerKey is what a connection's context keeps foreign's answer under.
type peerKey struct{}

// foreign says why a connection is not one of this user's own. The secret is not
// enough: a command that is called with it shows it to every user in its command
// line.
func (p *proxy) foreign(c net.Conn) error {
	local, err1 := netip.ParseAddrPort(c.LocalAddr().String())
	remote, err2 := netip.ParseAddrPort(c.RemoteAddr().String())
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	return p.own(local, remote)
}

func (p *proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if foreign, _ := r.Context().Value(peerKey{}).(func() error); foreign == nil || foreign() != nil {
		http.Error(w, "toolgrant exec: this proxy is for one user's command", http.StatusForbidden)
		return
	}
	// The base URL is a secret of the command's, and no page's name to its tool.
	r.Header.Del("Referer")
	if r.URL.IsAbs() { // RFC 9112, Section 3.2.2: asked as a proxy
		p.serveAsProxy(w, r)
		return
	}
	// The text as it came: what is passed on is the rest of it, byte by byte.
	secret, rest := strings.TrimPrefix(r.RequestURI, "/"), ""
	if i := strings.IndexAny(secret, "/?"); i >= 0 {
		secret, rest = secret[:i], secret[i:]
	}
	if !p.knows(secret) {
		http.Error(w, "toolgrant exec: this proxy is for one command; use its TOOLGRANT_PROXY_URL", http.StatusForbidden)
		return
	}
	if !strings.HasPrefix(rest, "/") {
		rest = "/" + rest
	}
	to, err := url.ParseRequestURI(rest)
	if err != nil {
		http.Error(w, "toolgrant exec: the path is not one", http.StatusBadRequest)
		return
	}
	stripped := *r.WithContext(context.WithValue(r.Context(), baseKey{}, true))
	stripped.URL = to
	p.forward.ServeHTTP(w, &stripped)
}

// baseKey is set for a request by the base URL.
type baseKey struct{}

// ownLocation has a redirect within the origin lead through the base URL again.
func (p *proxy) ownLocation(r *http.Response) error {
	if r.Request.Context().Value(baseKey{}) == nil {
		return nil // a client that was told a proxy uses the origin's own URLs
	}
	for _, name := range []string{"Location", "Content-Location"} {
		text := r.Header.Get(name)
		u, err := url.Parse(text)
		switch {
		case text == "" || err != nil:
		case u.Host == "" && strings.HasPrefix(u.Path, "/"):
			r.Header.Set(name, "/"+p.secret+text)
		case u.Scheme == p.to.Scheme && strings.EqualFold(u.Host, p.to.Host):
			r.Header.Set(name, p.base()+u.RequestURI())
		}
	}
	return nil
}

func (p *proxy) serveAsProxy(w http.ResponseWriter, r *http.Request) {
	basic, _ := strings.CutPrefix(r.Header.Get("Proxy-Authorization"), "Basic ")
	pair, _ := base64.StdEncoding.DecodeString(basic)
	user, _, _ := strings.Cut(string(pair), ":")
	switch {
	case !p.knows(user):
		w.Header().Set("Proxy-Authenticate", `Basic realm="toolgrant exec"`)
		http.Error(w, "toolgrant exec: this proxy is for one command; use its TOOLGRANT_HTTP_PROXY", http.StatusProxyAuthRequired)
	case r.URL.Scheme != p.to.Scheme || !strings.EqualFold(r.URL.Host, p.to.Host) || r.URL.User != nil:
		http.Error(w, fmt.Sprintf("toolgrant exec: this proxy is for %s alone", p.to), http.StatusForbidden)
	default:
		p.forward.ServeHTTP(w, r)
	}
}

// knows compares in constant time: the secret must not be found by its letters.
func (p *proxy) knows(secret string) bool {
	return subtle.ConstantTimeCompare([]byte(secret), []byte(p.secret)) == 1
}
