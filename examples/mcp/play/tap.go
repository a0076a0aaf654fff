package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
)

// tap stands between the clients and Envoy and looks on: it changes nothing, and
// keeps what was asked and what Envoy answered.
type tap struct {
	url string
	srv *http.Server

	mu   sync.Mutex
	seen []exchange
}

// exchange is one message to Envoy, and its answer.
type exchange struct {
	what   string // "tools/call write_note"
	status int
	denial string // what an answer of status 400 or more says: its JSON-RPC error's message, or the body
	reason string // in the error's data
}

func (e exchange) String() string {
	return strings.TrimSpace(fmt.Sprintf("%-28s Envoy: %d %s", e.what, e.status, e.denial))
}

type askedKey struct{}

// maxLook bounds what is read of a body to look at it. Envoy's limit of requests is
// the same.
const maxLook = 64 << 10

// openTap listens on a free port in front of the server at to (a base URL).
func openTap(to string) (*tap, error) {
	target, err := url.Parse(to)
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	t := &tap{url: "http://" + l.Addr().String()}
	proxy := &httputil.ReverseProxy{
		Rewrite:        func(r *httputil.ProxyRequest) { r.SetURL(target) },
		ModifyResponse: t.look,
		FlushInterval:  -1,
	}
	t.srv = &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(io.LimitReader(r.Body, maxLook))
		if err != nil {
			return
		}
		var m struct {
			Method string
			Params struct{ Name, URI string }
		}
		what := r.Method
		if json.Unmarshal(body, &m) == nil && m.Method != "" {
			what = strings.TrimSpace(m.Method + " " + m.Params.Name + m.Params.URI)
		}
		r.Body = struct {
			io.Reader
			io.Closer
		}{io.MultiReader(bytes.NewReader(body), r.Body), r.Body}
		proxy.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), askedKey{}, what)))
	})}
	go func() { _ = t.srv.Serve(l) }()
	return t, nil
}

// look keeps an answer, and what was asked with it.
func (t *tap) look(r *http.Response) error {
	what, _ := r.Request.Context().Value(askedKey{}).(string)
	e := exchange{what: what, status: r.StatusCode}
	if r.StatusCode >= 400 {
		body, err := io.ReadAll(io.LimitReader(r.Body, maxLook))
		if err != nil {
			return err
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		e.denial = strings.TrimSpace(string(body))
		var denial struct {
			Error struct {
				Message string
				Data    struct{ Reason string }
			}
		}
		if json.Unmarshal(body, &denial) == nil && denial.Error.Message != "" {
			e.denial, e.reason = denial.Error.Message, denial.Error.Data.Reason
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.seen = append(t.seen, e)
	return nil
}

// taken returns what was seen since the last time.
func (t *tap) taken() []exchange {
	t.mu.Lock()
	defer t.mu.Unlock()
	seen := t.seen
	t.seen = nil
	return seen
}
