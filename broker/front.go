package broker

import (
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/toolgrant/toolgrant/audit"
	"github.com/toolgrant/toolgrant/grants"
)

// kindRequest is the record's kind of a request that did not get as far as to say
// what it wants.
const kindRequest = "request"

// front is what every request passes before a route is looked for. It turns
// away what no client of ours sends:
//   - a name in Host that is not ours: a page's own, rebound to our address. An
//     address literal cannot be rebound.
//   - an Origin that is not ours: another site's page.
//   - a Transfer-Encoding. net/http lets it win over a Content-Length beside it,
//     and drops that one unseen, while a proxy before us may have gone by the
//     other (RFC 9112, Section 6.1). Whoever asks here knows the length of what
//     they send.
//
// What it turns away, and what is for no door, costs the source's allowance and
// has no place in hand: there is nothing to do but to write the answer.
func (b *Broker) front(mux *http.ServeMux) http.Handler {
	origins, hosts := ownNames(b.cfg.Issuer, b.publicURL())
	return b.limits.flight.counted(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case !ownHost(hosts, r.Host):
			b.turnAway(w, r, http.StatusMisdirectedRequest, "the Host is not the broker's: use the URL that it is configured with, or an address")
		case !ownOrigin(origins, r.Header.Values("Origin")):
			b.turnAway(w, r, http.StatusForbidden, "the broker is not there for pages of other sites")
		case len(r.TransferEncoding) > 0:
			b.turnAway(w, r, http.StatusLengthRequired, "send the body with a Content-Length, not in chunks")
		case isDoor(mux, r):
			mux.ServeHTTP(w, r)
		default:
			if req := b.request(w, r, kindRequest); b.anybody(w, req) {
				hurry(w)
				mux.ServeHTTP(w, r)
			}
		}
	})
}

// turnAway refuses a request before any door. It is a denial like another, and
// on record; the log folds such as have no identity when they are many.
func (b *Broker) turnAway(w http.ResponseWriter, hr *http.Request, status int, help string) {
	w.Header().Set("Connection", "close")
	r := b.request(w, hr, kindRequest)
	if !b.anybody(w, r) {
		return
	}
	rec := &r.records[0]
	rec.ID, rec.Time, rec.LatencyUS = r.id, r.now, time.Since(r.began).Microseconds()
	rec.Source, rec.Count, rec.Rev = r.source, 1, b.cfg.Table.Rev().String()
	rec.Outcome, rec.Reason, rec.Status, rec.Note = audit.Deny, grants.Mismatch, status, help
	if err := b.cfg.Record(r.records); err != nil { // it is no all the same
		b.cfg.Logger.Debug("recording a decision", zap.String("decision", r.id), zap.Error(err))
	}
	writeJSON(w, status, apiStyle.refusal(r, refused(grants.Mismatch, help)))
}

// anybody lets through what asks for no credential and whose body nobody reads,
// or answers it: its source has spent its allowance.
func (b *Broker) anybody(w http.ResponseWriter, r *request) bool {
	r.linger()
	if b.limits.admitAnybody(r) {
		return true
	}
	apiStyle.answer(w, r, b.record(r, apiStyle, refused(grants.Limit, "")))
	return false
}

// ownNames are the origins ("https://host:port") and the hosts of our own URLs,
// in lower case.
func ownNames(urls ...string) (origins, hosts map[string]bool) {
	origins, hosts = map[string]bool{}, map[string]bool{"localhost": true}
	for _, s := range urls {
		if u, err := url.Parse(s); err == nil && u.Host != "" {
			origins[strings.ToLower(u.Scheme+"://"+u.Host)] = true
			hosts[strings.ToLower(u.Hostname())] = true
		}
	}
	return origins, hosts
}

// ownHost reports whether Host (RFC 9110, Section 7.2) is an address or a name
// of ours. The port is not compared: it is the one that was dialled, or a
// proxy's before us.
func ownHost(hosts map[string]bool, host string) bool {
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	} else if strings.HasPrefix(host, "[") && strings.HasSuffix(host, "]") {
		name = host[1 : len(host)-1]
	}
	if _, err := netip.ParseAddr(name); err == nil {
		return true
	}
	return hosts[strings.ToLower(strings.TrimSuffix(name, "."))]
}

// ownOrigin reports whether there is no Origin (RFC 6454, Section 7), or one, and
// that is ours. "null", a sandboxed page's, is not.
func ownOrigin(origins map[string]bool, values []string) bool {
	return len(values) == 0 || len(values) == 1 && origins[strings.ToLower(values[0])]
}
