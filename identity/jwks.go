package identity

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/toolgrant/toolgrant/token"
)

const (
	maxJWKS   = 256 << 10 // bytes
	maxBearer = 16 << 10  // bytes
	maxCA     = 1 << 20   // bytes

	fetchEvery = 5 * time.Minute
	fetchGap   = time.Minute // between two fetches of one issuer's keys, whatever tokens come
	lookEvery  = 5 * time.Second
	readTime   = 10 * time.Second
)

// source is where an issuer's keys are.
type source struct {
	read  func(context.Context) ([]byte, error) // the JWK Set as it is now
	every time.Duration                         // how often Run reads it
	gap   time.Duration                         // before Run may read it again for a token's sake, or after a failure
	limit time.Duration                         // for one reading, from the first byte to the last
}

// held is what an issuer's tokens are verified by; it never changes.
type held struct {
	keys *token.KeySet
	data []byte    // that keys were parsed from
	read time.Time // when they were last seen to be the issuer's
	err  error     // why they were not the last time; nil if they were
}

// KeyStatus is how an issuer's keys are.
type KeyStatus struct {
	Alias   string
	Keys    int       // that can verify
	Skipped int       // of a kind that is not supported
	Read    time.Time // when these were last read from where they are
	Err     error     // why the last reading failed: these are older then; nil: it did not
}

// Status says how each issuer's keys are, sorted by alias. Keys stay in use
// however long they cannot be read anew: that an issuer is away takes nothing
// from its agents, and that it withdrew a key cannot be known. Whoever wants to
// be told looks at Read.
func (v *Verifier) Status() []KeyStatus {
	var all []KeyStatus
	for _, iss := range v.byURL {
		h := iss.held.Load()
		all = append(all, KeyStatus{Alias: iss.Alias, Keys: h.keys.Len(), Skipped: h.keys.Skipped(), Read: h.read, Err: h.err})
	}
	slices.SortFunc(all, func(a, b KeyStatus) int { return strings.Compare(a.Alias, b.Alias) })
	return all
}

// Run keeps all issuers' keys fresh until ctx ends, and then gives nil. A file
// is read every 5 s. A URL is fetched every 5 minutes, and sooner, but not
// within a minute of the last time, when a token names a key that is not held or
// when the last fetch failed. Keys that cannot be read leave those before them
// in use (Status).
func (v *Verifier) Run(ctx context.Context) error {
	var issuers sync.WaitGroup
	for _, iss := range v.byURL {
		issuers.Go(func() { v.follow(ctx, iss) })
	}
	<-ctx.Done()
	issuers.Wait()
	return nil
}

func (v *Verifier) follow(ctx context.Context, iss *issuer) {
	last := iss.held.Load().read
	for {
		wait := iss.source.every
		if iss.held.Load().err != nil {
			wait = iss.source.gap
		}
		if !sleep(ctx, wait, iss.missed) || !sleep(ctx, iss.source.gap-time.Since(last), nil) {
			return
		}
		before := iss.held.Load()
		changed, err := iss.refresh(ctx, time.Now())
		last = time.Now()
		if ctx.Err() != nil {
			return // no fault of the issuer's
		}
		v.report(iss, before, changed, err)
	}
}

// sleep waits for d to pass or for wake, and says whether ctx goes on.
func sleep(ctx context.Context, d time.Duration, wake <-chan struct{}) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
	case <-wake:
	}
	return true
}

// refresh reads the keys. On an error those before stay, but for the first time.
func (iss *issuer) refresh(ctx context.Context, now time.Time) (changed bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, iss.source.limit)
	defer cancel()
	before := iss.held.Load()
	data, err := iss.source.read(ctx)
	if err == nil && before != nil && bytes.Equal(data, before.data) {
		// The same key set, so that what was verified by it stays known.
		iss.held.Store(&held{keys: before.keys, data: before.data, read: now})
		return false, nil
	}
	var keys *token.KeySet
	if err == nil {
		if keys, err = token.ParseJWKS(data); err != nil {
			err = fmt.Errorf("keys of %s: %w", iss.place(), err)
		}
	}
	if err != nil {
		if before != nil {
			iss.held.Store(&held{keys: before.keys, data: before.data, read: before.read, err: err})
		}
		return false, err
	}
	iss.held.Store(&held{keys: keys, data: data, read: now})
	return true, nil
}

func (iss *Issuer) place() string { return iss.JWKSFile + iss.JWKSURL } // one of them is ""

// report logs what changed: a file that stays broken is one line, not one every
// 5 s.
func (v *Verifier) report(iss *issuer, before *held, changed bool, err error) {
	v.onRefresh(iss.Alias, changed, err)
	switch {
	case err != nil && (before.err == nil || before.err.Error() != err.Error()):
		v.log.Warn("an issuer's keys cannot be read; those before stay in use",
			zap.String("issuer", iss.Alias), zap.Time("read", before.read), zap.Error(err))
	case changed:
		v.log.Info("an issuer's keys have changed", zap.String("issuer", iss.Alias), zap.Int("keys", iss.held.Load().keys.Len()))
	case err == nil && before.err != nil:
		v.log.Info("an issuer's keys can be read again", zap.String("issuer", iss.Alias))
	}
}

// hasten lets Run fetch the keys soon if the token, which keys did not verify,
// names another one: the issuer may have a new one. Anybody can write such a
// token, so this never waits, and Run keeps its distance.
func (iss *issuer) hasten(keys *token.KeySet, compact string) {
	if kid, ok := token.UnverifiedKID(compact, MaxBytes); !ok || keys.Has(kid) {
		return
	}
	select {
	case iss.missed <- struct{}{}:
	default:
	}
}

func (iss *Issuer) keySource() (source, error) {
	if (iss.JWKSFile == "") == (iss.JWKSURL == "") {
		return source{}, errors.New("exactly one of JWKS file and JWKS URL is needed")
	}
	if iss.JWKSFile != "" {
		if iss.CAFile != "" || iss.BearerFile != "" {
			return source{}, errors.New("CA file and bearer file are for a JWKS URL")
		}
		return source{read: iss.readFile, every: lookEvery, gap: lookEvery, limit: readTime}, nil
	}
	u, err := url.Parse(iss.JWKSURL)
	if err != nil || u.Host == "" || u.User != nil || u.Fragment != "" {
		// The text may hold a password, and so does err.
		return source{}, errors.New("JWKS URL: not an absolute URL without user and fragment")
	}
	if u.Scheme != "https" && (u.Scheme != "http" || !isLoopback(u.Hostname())) {
		return source{}, fmt.Errorf("JWKS URL %s: https is needed (http to 127.0.0.1 or [::1] alone): whoever is on the way could be any agent", u)
	}
	if iss.CAFile != "" && u.Scheme != "https" {
		return source{}, errors.New("CA file: the JWKS URL is not https")
	}
	return source{read: iss.fetch, every: fetchEvery, gap: fetchGap, limit: readTime}, nil
}

// isLoopback takes addresses alone: what "localhost" is, others may decide.
func isLoopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.IsLoopback()
}

func (iss *Issuer) readFile(context.Context) ([]byte, error) {
	data, err := readFile(iss.JWKSFile, maxJWKS)
	if err != nil {
		return nil, fmt.Errorf("JWKS file: %w", err)
	}
	return data, nil
}

var bearerPattern = regexp.MustCompile(`^[A-Za-z0-9._~+/-]+=*$`) // RFC 6750, Section 2.1: b64token

// fetch gets the keys from the URL. CA and bearer token are read each time,
// since both are replaced while we run; nothing of a connection is kept.
func (iss *Issuer) fetch(ctx context.Context) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, iss.JWKSURL, nil)
	if err != nil {
		return nil, fmt.Errorf("JWKS URL: %w", err)
	}
	req.Header.Set("Accept", "application/jwk-set+json, application/json") // RFC 7517, Section 8.5
	req.Header.Set("User-Agent", "toolgrant")
	roots, err := iss.roots()
	if err != nil {
		return nil, err
	}
	if iss.BearerFile != "" {
		bearer, err := readFile(iss.BearerFile, maxBearer)
		if err != nil {
			return nil, fmt.Errorf("bearer file: %w", err)
		}
		text := strings.TrimSpace(string(bearer))
		if len(bearer) > maxBearer || !bearerPattern.MatchString(text) {
			return nil, fmt.Errorf("bearer file: %s: not one token", iss.BearerFile)
		}
		req.Header.Set("Authorization", "Bearer "+text)
	}
	client := http.Client{
		Transport: &http.Transport{
			Proxy:                  http.ProxyFromEnvironment, // never for loopback
			TLSClientConfig:        &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
			DisableKeepAlives:      true,
			DisableCompression:     true,
			MaxResponseHeaderBytes: 64 << 10,
		},
		// Where a redirect leads, the bearer token would go, too.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("JWKS URL: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("JWKS URL: %s answers with status %d; redirects are not followed", iss.JWKSURL, resp.StatusCode)
	}
	// One byte more than may be, which the parser refuses.
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxJWKS+1))
	if err != nil {
		return nil, fmt.Errorf("JWKS URL: %s: %w", iss.JWKSURL, err)
	}
	return data, nil
}

// roots are nil for those of the system.
func (iss *Issuer) roots() (*x509.CertPool, error) {
	if iss.CAFile == "" {
		return nil, nil
	}
	data, err := readFile(iss.CAFile, maxCA)
	if err != nil {
		return nil, fmt.Errorf("CA file: %w", err)
	}
	roots := x509.NewCertPool()
	if len(data) > maxCA || !roots.AppendCertsFromPEM(data) {
		return nil, fmt.Errorf("CA file: %s: no certificate in PEM", iss.CAFile)
	}
	return roots, nil
}

// readFile reads at most one byte more than limit, which the caller refuses. Who
// can write the file can be anybody, so that only its owner may.
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
		quoted := "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
		return nil, fmt.Errorf("%s: group or others can write it (%#o), and could be anybody by that; if nobody has, run: chmod go-w %s", path, mode, quoted)
	}
	return io.ReadAll(io.LimitReader(f, limit+1))
}
