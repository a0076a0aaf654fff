// Package envoy writes Envoy configurations from the catalogue: a whole
// bootstrap, or the parts to paste into an existing one. It does no I/O.
//
// What it writes has two halves that must not come apart. Envoy's half: one
// route per HTTP tool, by exact path and method, and one way per MCP server, by
// exact path, that tell the authorization server which it is; everything that
// could make the request that runs differ from the one that was checked is
// refused or removed. The server's half: it gets the request as it will run (raw
// headers, whole body), and its answer may remove any ordinary header and set
// those that it needs, but not what routes or frames the request. Two headers
// that it sets do route a message to an MCP server: by PassHeader it goes over the
// surface, where its answer is watched, and by StreamHeader over the connections
// of streams.
//
// Invariants of everything that is written:
//   - no catch-all route: what is neither tool nor server gets 404 without a
//     check;
//   - no way to any cluster without a check;
//   - every failure to check denies: 503, or 413 for a body over the limit;
//   - no retries, hedging, mirroring or redirects, and no rewrite of a path but
//     to a literal of the catalogue's: a call that was allowed once runs once,
//     where it was allowed to;
//   - credentials do not reach a tool, even if the server forgets to remove
//     them;
//   - open streams take no connection that a call needs, and what waits at one
//     server takes none of another's.
//
// The settings are for Envoy 1.40 and were tried against it; the tests run it.
package envoy

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/toolgrant/toolgrant/catalog"
)

// What the zero values of Options mean.
const (
	DefaultCredentialHeader = "authorization"
	DefaultMaxBody          = 64 << 10
	DefaultCheckTimeout     = 250 * time.Millisecond
)

// Names that the written configuration and others agree on.
const (
	// FilterName is the name of the ext_authz filter, and the namespace of
	// its dynamic metadata. Per-route settings are keyed by it.
	FilterName = "envoy.filters.http.ext_authz"
	// ListenerName is the name of the listener that Config writes.
	ListenerName = "toolgrant"
	// AuthzCluster is the name of the authorization server's cluster.
	AuthzCluster = "toolgrant-authz"
	// ExtensionTool is the context extension with the id of an HTTP tool,
	// SERVER/TOOL.
	ExtensionTool = "tool"
	// ExtensionServer is the context extension with an MCP server's id. A route
	// has it or ExtensionTool.
	ExtensionServer = "server"
	// ExtensionTimeout is the context extension with the route's time-out in
	// whole milliseconds. For an HTTP tool the server must never send a longer
	// one back; for a message to an MCP server it sends the message's own.
	ExtensionTimeout = "timeout_ms"
	// ContextPrefix begins the names of the headers that the server adds for
	// the tool. A client's own are removed before the check.
	ContextPrefix = "x-grant-ctx-"
	// PassHeader is how the server sends a message to an MCP server over the
	// surface; authz/mcp has the same name. It has the ContextPrefix.
	PassHeader = "x-grant-ctx-pass"
	// StreamHeader is how the server says that the answer to a message to an MCP
	// server is a stream, which takes connections that no call needs; authz has the
	// same name. Its presence counts. It has the ContextPrefix, and reaches no
	// server.
	StreamHeader = "x-grant-ctx-stream"
	// TimeoutHeader is how the server sets the time-out of one call: it shortens
	// and raises, up to the cluster's cap.
	TimeoutHeader = "x-envoy-upstream-rq-timeout-ms"
	// DetailType is the type of a grant in authorization details (RFC 9396),
	// which the metadata names; token has the same.
	DetailType = "urn:toolgrant:grant:1"
)

// MetadataKeys are the keys of the dynamic metadata that the server sends with
// an answer, and that the access log prints.
var MetadataKeys = [...]string{"decision_id", "agent", "task", "grant", "tool", "reason"}

// Options say what to write.
type Options struct {
	Catalog *catalog.Catalog // required

	// Listen is where Envoy takes calls: IP:PORT. Required for Config;
	// Fragment does not use it.
	Listen string

	// TLS is how Envoy takes calls; the zero value means plain HTTP. Fragment
	// does not use it.
	TLS ListenerTLS

	// Authz is where the authorization server listens: "unix:///PATH", or
	// IP:PORT, without AuthzTLS on loopback. Required.
	Authz string

	// AuthzTLS is how Envoy calls an authorization server at IP:PORT; the zero
	// value means without TLS.
	AuthzTLS AuthzTLS

	// Surface is where the surface listens, which proxies those messages to MCP
	// servers whose answers have to be watched: "unix:///PATH", or IP:PORT on
	// loopback. Required if the catalogue has an MCP server; else not used.
	Surface string

	// Issuer is the broker's issuer URL (RFC 8414, Section 2), to which the
	// metadata of the servers points (RFC 9728); "": no metadata is served, and
	// clients are told by other means where to ask for grants. Nor is it for
	// servers whose resources differ by their ports alone.
	Issuer string

	// CredentialHeader is the header that holds the credential of calls to the
	// tools whose catalogue entry names none; "" means DefaultCredentialHeader.
	// It and those that tools name go to the check and never to a tool.
	CredentialHeader string

	// MaxBody is the largest request body in bytes; 0 means DefaultMaxBody.
	// Envoy holds it in memory and sends it with the check, so the server's
	// gRPC receive limit must be larger.
	MaxBody uint32

	// CheckTimeout bounds one check, in whole milliseconds; 0 means
	// DefaultCheckTimeout.
	CheckTimeout time.Duration

	// AccessLog is the file that the access log is written to; "" means
	// standard output.
	AccessLog string

	// Admin is where Envoy's admin interface listens: IP:PORT on loopback,
	// because it has no authentication; "" means there is none.
	Admin string
}

// ListenerTLS names PEM files on Envoy's machine, which Envoy reads at its start.
type ListenerTLS struct {
	CertFile, KeyFile string // certificate chain and key; both, or no TLS
	ClientCAFile      string // a client's certificate, if it shows one, must be of one of these; "": none is asked for
	RequireClientCert bool   // who shows none is turned away; with ClientCAFile alone
}

// AuthzTLS names PEM files on Envoy's machine, which Envoy reads at its start.
// All four, or none: each side shows a certificate and checks the other's.
type AuthzTLS struct {
	CertFile, KeyFile string // Envoy's own certificate chain and key
	CAFile            string // whose certificates the server may have
	ServerName        string // name in the server's certificate: DNS name, IP address, or URI (a SPIFFE id)
}

// maxMaxBody lies under the 4 MiB that grpc-go receives by default, with room
// for the rest of a check.
const maxMaxBody = 3 << 20

// withDefaults returns o with its defaults filled in, or what is wrong with
// it.
func (o Options) withDefaults() (Options, error) {
	o.CredentialHeader = cmp.Or(o.CredentialHeader, DefaultCredentialHeader)
	o.MaxBody = cmp.Or(o.MaxBody, DefaultMaxBody)
	o.CheckTimeout = cmp.Or(o.CheckTimeout, DefaultCheckTimeout)

	if o.Catalog == nil {
		return o, errors.New("no catalogue")
	}
	if err := o.checkTLS(); err != nil {
		return o, err
	}
	if err := o.checkEndpoints(); err != nil {
		return o, err
	}
	if ap, err := addrPort(o.Admin); o.Admin != "" && (err != nil || !ap.Addr().IsLoopback()) {
		return o, fmt.Errorf("admin %q: must be IP:PORT on loopback", o.Admin)
	}
	if o.CheckTimeout < time.Millisecond || o.CheckTimeout%time.Millisecond != 0 || o.CheckTimeout > time.Minute {
		// Envoy takes 0 for "no time-out".
		return o, fmt.Errorf("check time-out %v: must be whole milliseconds, from 1ms to 1m", o.CheckTimeout)
	}
	if o.MaxBody > maxMaxBody {
		return o, fmt.Errorf("body limit %d: must be at most %d bytes", o.MaxBody, maxMaxBody)
	}
	if err := o.checkMetadata(); err != nil {
		return o, err
	}
	return o, o.Catalog.CheckCredentials(o.CredentialHeader)
}

// checkEndpoints wants our own servers where nobody can listen in or answer in
// their place: on this machine, or behind TLS.
func (o Options) checkEndpoints() error {
	authz, ok := parseEndpoint(o.Authz)
	if !ok || !authz.local() && o.AuthzTLS == (AuthzTLS{}) {
		return fmt.Errorf("authorization server %q: must be unix:///PATH (%s), IP:PORT on loopback, or another IP:PORT with TLS", o.Authz, socketPath)
	}
	if authz.file != "" && o.AuthzTLS != (AuthzTLS{}) {
		return fmt.Errorf("authorization server %q: TLS is for IP:PORT", o.Authz)
	}
	if o.Surface == "" && !hasMCP(o.Catalog) {
		return nil
	}
	if surface, ok := parseEndpoint(o.Surface); !ok || !surface.local() {
		return fmt.Errorf("surface %q, which MCP servers need: must be unix:///PATH (%s), or IP:PORT on loopback", o.Surface, socketPath)
	}
	if o.Surface == o.Authz {
		return fmt.Errorf("surface %q: the authorization server is there", o.Surface)
	}
	return nil
}

// checkTLS refuses half of a setting: what was meant to be verified would not be.
func (o Options) checkTLS() error {
	l, a := o.TLS, o.AuthzTLS
	switch {
	case (l.CertFile == "") != (l.KeyFile == ""):
		return errors.New("listener: TLS needs both a certificate and its key")
	case l.CertFile == "" && l != (ListenerTLS{}):
		return errors.New("listener: clients' certificates are for TLS, which needs a certificate and key")
	case l.RequireClientCert && l.ClientCAFile == "":
		return errors.New("listener: to require clients' certificates, say whose (the CA file)")
	case a != (AuthzTLS{}) && (a.CertFile == "" || a.KeyFile == "" || a.CAFile == "" || a.ServerName == ""):
		return errors.New("authorization server: TLS needs certificate, key, CA and server name")
	}
	for _, text := range []string{l.CertFile, l.KeyFile, l.ClientCAFile, a.CertFile, a.KeyFile, a.CAFile, a.ServerName} {
		if !utf8.ValidString(text) || strings.ContainsFunc(text, unicode.IsControl) {
			return fmt.Errorf("TLS: %q is not a printable path or name", text)
		}
	}
	return nil
}

// endpoint is where a server of ours listens: one of the two.
type endpoint struct {
	file string // a Unix socket's path
	addr netip.AddrPort
}

// socketPath says what a Unix socket's path must be: sun_path holds 108 bytes with
// its end.
const socketPath = "the path clean and at most 107 bytes long"

// parseEndpoint reads "unix:///PATH", or IP:PORT of one address.
func parseEndpoint(s string) (endpoint, bool) {
	if file, ok := strings.CutPrefix(s, "unix://"); ok {
		clean := path.IsAbs(file) && path.Clean(file) == file && len(file) <= 107 && !strings.ContainsRune(file, 0)
		return endpoint{file: file}, clean
	}
	ap, err := addrPort(s)
	return endpoint{addr: ap}, err == nil && !ap.Addr().IsUnspecified() && ap.Port() != 0
}

// local reports whether it cannot be reached from another machine.
func (e endpoint) local() bool { return e.file != "" || e.addr.Addr().IsLoopback() }

// addrPort reads IP:PORT. Envoy resolves no names here.
func addrPort(s string) (netip.AddrPort, error) {
	ap, err := netip.ParseAddrPort(s)
	if err != nil || ap.Addr().Zone() != "" {
		return netip.AddrPort{}, fmt.Errorf("%q: must be IP:PORT", s)
	}
	return ap, nil
}

// splitUpstream takes apart a catalogue's upstream, which has been checked.
func splitUpstream(s string) (host string, port uint32, err error) {
	host, text, err := net.SplitHostPort(s)
	if err != nil {
		return "", 0, err
	}
	n, err := strconv.ParseUint(text, 10, 16)
	return host, uint32(n), err
}
