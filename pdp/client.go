package pdp

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"regexp"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-json-experiment/json"
)

const (
	maxAnswer = 1 << 20  // bytes of an answer
	maxToken  = 16 << 10 // bytes of the token file
	maxCA     = 1 << 20  // bytes of the CA file
)

// client speaks JSON over HTTP with one engine.
type client struct {
	http      http.Client
	tokenFile string
	token     atomic.Pointer[string] // nil: none is sent
}

func newClient(secure bool, caFile, tokenFile string) (*client, error) {
	c := &client{tokenFile: tokenFile}
	transport := &http.Transport{
		// No proxy of the environment: who answers here decides.
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
		ForceAttemptHTTP2:      true,
		DisableCompression:     true,
		MaxIdleConnsPerHost:    64,
		IdleConnTimeout:        90 * time.Second,
		MaxResponseHeaderBytes: 64 << 10,
	}
	if caFile != "" {
		if !secure {
			return nil, errors.New("CA file: the URL is not https")
		}
		pem, err := readFile(caFile, maxCA)
		if err != nil {
			return nil, fmt.Errorf("CA file: %w", err)
		}
		roots := x509.NewCertPool()
		if !roots.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("CA file: %s: no certificate in PEM", caFile)
		}
		transport.TLSClientConfig.RootCAs = roots
	}
	c.http = http.Client{
		Transport: transport,
		// Another place could decide otherwise, and would get the token.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return c, c.readToken()
}

var tokenPattern = regexp.MustCompile(`^[A-Za-z0-9._~+/-]+=*$`) // RFC 6750, Section 2.1: b64token

// readToken reads the bearer token anew: it is replaced while we run. On an error
// the one before stays.
func (c *client) readToken() error {
	if c.tokenFile == "" {
		return nil
	}
	data, err := readFile(c.tokenFile, maxToken)
	if err != nil {
		return fmt.Errorf("token file: %w", err)
	}
	text := strings.TrimSpace(string(data))
	if !tokenPattern.MatchString(text) {
		return fmt.Errorf("token file: %s: not one bearer token", c.tokenFile)
	}
	c.token.Store(&text)
	return nil
}

// post sends a body and gives the answer's.
func (c *client) post(ctx context.Context, target string, body any) ([]byte, error) {
	text, err := json.Marshal(body, json.Deterministic(true))
	if err != nil {
		return nil, fmt.Errorf("writing the question: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, target, bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	// To ask twice is to ask once, so a connection that the engine has closed
	// meanwhile may be replaced. net/http does not send an empty list.
	req.Header["Idempotency-Key"] = nil
	status, answer, err := c.do(req)
	if err != nil {
		return nil, err
	}
	if status != http.StatusOK {
		return nil, fmt.Errorf("%s answers with status %d; redirects are not followed", target, status)
	}
	return answer, nil
}

// do gives the status and, of 200, the body.
func (c *client) do(req *http.Request) (int, []byte, error) {
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "toolgrant")
	if token := c.token.Load(); token != nil {
		req.Header.Set("Authorization", "Bearer "+*token)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	// Read in any case: a connection whose answer was not read is not used again.
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return 0, nil, fmt.Errorf("%s: %w", req.URL, err)
	}
	if resp.StatusCode != http.StatusOK {
		return resp.StatusCode, nil, nil
	}
	if len(answer) > maxAnswer {
		return 0, nil, fmt.Errorf("%s: the answer is over %d bytes", req.URL, maxAnswer)
	}
	if kind, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		return 0, nil, fmt.Errorf("%s: the answer is not application/json", req.URL)
	}
	return http.StatusOK, answer, nil
}

// readURL reads the address of an engine: https, or http to a loopback address.
func readURL(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.ForceQuery || strings.Contains(text, "#") {
		// The text may hold a password, and so does err.
		return nil, errors.New("URL: not an absolute URL without user, query and fragment")
	}
	if u.Scheme != "https" && (u.Scheme != "http" || !isLoopback(u.Hostname())) {
		return nil, fmt.Errorf("URL %s: https is needed (http to 127.0.0.1 or [::1] alone): whoever is on the way could permit everything", u)
	}
	return u, nil
}

// isLoopback takes addresses alone: what "localhost" is, others may decide.
func isLoopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.IsLoopback()
}

// readFile reads a file of at most limit bytes. Who can write it can be the
// engine, or have us be somebody else, so that only its owner may.
func readFile(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat() // of what was opened
	if err != nil {
		return nil, err
	}
	if mode := info.Mode().Perm(); mode&0o022 != 0 {
		return nil, fmt.Errorf("%s: group or others can write it (%#o); if nobody has, run: chmod go-w on it", path, mode)
	}
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("%s: over %d bytes", path, limit)
	}
	return data, err
}
