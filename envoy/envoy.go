// Package envoy writes Envoy configurations from the catalogue: a whole
// bootstrap, or the parts to paste into an existing one. It does no I/O.
//
// What it writes has two halves that must not come apart. Envoy's half: one
// route per tool, by exact path and method, that tells the authorization
// server which tool it is; everything that could make the request that runs
// differ from the one that was checked is refused or removed. The server's
// half: it gets the request as it will run (raw headers, whole body), and its
// answer may remove any ordinary header and set those that it needs, but not
// what routes or frames the request.
//
// Invariants of everything that is written:
//   - no catch-all route: what is no tool gets 404 without a check;
//   - every failure to check denies: 503, or 413 for a body over the limit;
//   - no retries, hedging, mirroring, redirects or path rewrites: a call that
//     was allowed once runs once, where it was allowed to;
//   - credentials do not reach a tool, even if the server forgets to remove
//     them.
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
	"regexp"
	"strconv"
	"strings"
	"time"

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
	// ExtensionTool is the context extension with the tool's id, SERVER/TOOL.
	ExtensionTool = "tool"
	// ExtensionTimeout is the context extension with the route's time-out in
	// whole milliseconds. The server must never send a longer one back.
	ExtensionTimeout = "timeout_ms"
	// ContextPrefix begins the names of the headers that the server adds for
	// the tool. A client's own are removed before the check.
	ContextPrefix = "x-grant-ctx-"
	// TimeoutHeader is how the server shortens a call's time-out.
	TimeoutHeader = "x-envoy-upstream-rq-timeout-ms"
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

	// Authz is where the authorization server listens: "unix:///PATH", or
	// IP:PORT on loopback (there is no TLS between the two). Required.
	Authz string

	// CredentialHeader is the header that holds the grant token; "" means
	// DefaultCredentialHeader. It goes to the check and never to a tool.
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

// maxMaxBody lies under the 4 MiB that grpc-go receives by default, with room
// for the rest of a check.
const maxMaxBody = 3 << 20

var headerPattern = regexp.MustCompile("^[a-z0-9!#$%&'*+.^`|~-]{1,64}$") // RFC 9110, Section 5.6.2, without "_"

// withDefaults returns o with its defaults filled in, or what is wrong with
// it.
func (o Options) withDefaults() (Options, error) {
	o.CredentialHeader = cmp.Or(o.CredentialHeader, DefaultCredentialHeader)
	o.MaxBody = cmp.Or(o.MaxBody, DefaultMaxBody)
	o.CheckTimeout = cmp.Or(o.CheckTimeout, DefaultCheckTimeout)

	if o.Catalog == nil {
		return o, errors.New("no catalogue")
	}
	if file, ok := strings.CutPrefix(o.Authz, "unix://"); ok {
		// sun_path holds 108 bytes with its end.
		if !path.IsAbs(file) || path.Clean(file) != file || len(file) > 107 || strings.ContainsRune(file, 0) {
			return o, fmt.Errorf("authorization server %q: must be unix:///PATH, the path clean and at most 107 bytes long", o.Authz)
		}
	} else if ap, err := addrPort(o.Authz); err != nil || !ap.Addr().IsLoopback() || ap.Port() == 0 {
		return o, fmt.Errorf("authorization server %q: must be unix:///PATH or IP:PORT on loopback", o.Authz)
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
	return o, o.checkCredentialHeader()
}

// checkCredentialHeader refuses a credential header that could not be kept
// from a tool.
func (o Options) checkCredentialHeader() error {
	h := o.CredentialHeader
	switch {
	case !headerPattern.MatchString(h):
		return fmt.Errorf("credential header %q: must be a lower-case HTTP field name without an underscore", h)
	case h == "host" || h == "content-length" || h == "transfer-encoding" || h == "connection" ||
		strings.HasPrefix(h, "x-envoy-") || strings.HasPrefix(h, ContextPrefix):
		return fmt.Errorf("credential header %q: that header has another use", h)
	}
	for i := range o.Catalog.Servers {
		for _, t := range o.Catalog.Servers[i].Tools {
			if t.Header[h] != nil {
				return fmt.Errorf("tool %s: its input header %q is the credential header", t.ID, h)
			}
			if t.PassAuthorization && h == "authorization" {
				return fmt.Errorf("tool %s: pass_authorization would hand the grant token to the tool, "+
					"because %q is the credential header; choose another one", t.ID, h)
			}
		}
	}
	return nil
}

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
