package catalog

import (
	"cmp"
	"maps"
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

var (
	idPattern   = regexp.MustCompile(`^[a-z0-9][a-z0-9_.-]{0,62}$`)
	pathPattern = regexp.MustCompile(`^(/[A-Za-z0-9._~-]+)*/?$`) // RFC 3986, Section 2.3: unreserved
	dnsPattern  = regexp.MustCompile(`^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
)

// methods holds the methods that a tool can have, and whether they take a body.
var methods = map[string]bool{"GET": false, "DELETE": false, "POST": true, "PUT": true, "PATCH": true}

// reader builds a catalogue; its maps notice what is there twice.
type reader struct {
	*Catalog
	routes map[string]string // "METHOD PATH" -> tool id
	places map[*Tool]*node
}

func readCatalog(root *node) (*Catalog, error) {
	r := reader{
		Catalog: &Catalog{tools: map[string]*Tool{}, servers: map[string]*Server{}, resources: map[string]*Server{}},
		routes:  map[string]string{},
		places:  map[*Tool]*node{},
	}
	f, err := root.keys("servers")
	if err != nil {
		return nil, err
	}
	list, err := f.list("servers")
	if err != nil {
		return nil, err
	}
	if len(list) == 0 {
		return nil, root.errorf("a catalogue needs at least one server")
	}
	r.Servers = make([]Server, len(list)) // never grown: tools point into it
	for i, n := range list {
		if err := r.server(&r.Servers[i], n); err != nil {
			return nil, err
		}
	}
	if err := r.keptCredentials("", func(t *Tool, err error) error { return r.places[t].errorf("%v", err) }); err != nil {
		return nil, err
	}
	sets := map[string]bool{}
	for _, t := range r.tools {
		for _, s := range t.Sets {
			sets[s] = true
		}
	}
	r.sets = slices.Sorted(maps.Keys(sets))
	r.Digest = r.digest()
	return r.Catalog, nil
}

func (r *reader) server(s *Server, n *node) error {
	f, err := n.keys("id", "resource", "upstream", "credential", "http", "mcp", "tools")
	if err != nil {
		return err
	}
	for _, later := range []string{"mcp", "tools"} {
		if at, ok := f.key(later); ok {
			return at.errorf("%q: MCP servers are not supported yet; only \"http\" tools are", later)
		}
	}
	id, err := f.id("id")
	if err != nil {
		return err
	}
	if _, ok := r.servers[id.text]; ok {
		return id.errorf("server %q is there twice", id.text)
	}
	resource, err := f.text("resource")
	if err != nil {
		return err
	}
	if err := checkResource(resource); err != nil {
		return err
	}
	if other, ok := r.resources[resource.text]; ok {
		return resource.errorf("resource %q is already that of server %q", resource.text, other.ID)
	}
	upstream, err := f.text("upstream")
	if err != nil {
		return err
	}
	if err := checkUpstream(upstream); err != nil {
		return err
	}
	s.ID, s.Resource, s.Upstream = id.text, resource.text, upstream.text
	r.servers[s.ID], r.resources[s.Resource] = s, s
	credential, err := f.credential()
	if err != nil {
		return err
	}

	tools, err := f.list("http")
	if err != nil {
		return err
	}
	if len(tools) == 0 {
		return id.errorf("server %q has no tools: \"http\" must list at least one", s.ID)
	}
	for _, n := range tools {
		t, err := r.tool(s, n, credential)
		if err != nil {
			return err
		}
		s.Tools = append(s.Tools, t)
		r.tools[t.ID] = t
	}
	return nil
}

// tool reads a tool of the server, whose tools take their credential in the given
// header if they say nothing.
func (r *reader) tool(s *Server, n *node, credential string) (*Tool, error) {
	f, err := n.keys("tool", "method", "path", "sets", "timeout", "pass_authorization", "credential",
		"opaque", "query", "header", "body")
	if err != nil {
		return nil, err
	}
	name, err := f.id("tool")
	if err != nil {
		return nil, err
	}
	t := &Tool{ID: s.ID + "/" + name.text, Name: name.text, Server: s, Timeout: DefaultTimeout}
	if _, ok := r.tools[t.ID]; ok {
		return nil, name.errorf("tool %q is there twice", t.ID)
	}
	if err := r.route(t, f); err != nil {
		return nil, err
	}
	if t.Sets, err = f.strings("sets", checkID); err != nil {
		return nil, err
	}
	if v, ok := f.get("timeout"); ok {
		if t.Timeout, err = readTimeout(v); err != nil {
			return nil, err
		}
	}
	if v, ok := f.get("pass_authorization"); ok {
		if v.kind != boolean {
			return nil, v.errorf("\"pass_authorization\" must be %s, not %s", boolean, v.kind)
		}
		t.PassAuthorization = v.yes
	}
	own, err := f.credential()
	if err != nil {
		return nil, err
	}
	t.Credential = cmp.Or(own, credential)
	if err := t.readInput(f); err != nil {
		return nil, err
	}
	t.Opaque, err = f.strings("opaque", func(v *node) error { return checkPointer(v, t.Input()) })
	if err != nil {
		return nil, err
	}
	t.Digest = t.digest()
	r.places[t] = n
	return t, nil
}

// route reads the method and path, and refuses those that another tool has.
func (r *reader) route(t *Tool, f *fields) error {
	method, err := f.text("method")
	if err != nil {
		return err
	}
	if _, ok := methods[method.text]; !ok {
		return method.errorf("method %q: must be GET, POST, PUT, PATCH or DELETE", method.text)
	}
	path, err := f.text("path")
	if err != nil {
		return err
	}
	if err := checkPath(path); err != nil {
		return err
	}
	t.Method, t.Path = method.text, path.text
	key := t.Method + " " + t.Path
	if other, ok := r.routes[key]; ok {
		return path.errorf("%s is already the tool %q: one listener serves all servers, "+
			"so a method and path can name only one tool of the whole catalogue", key, other)
	}
	r.routes[key] = t.ID
	return nil
}

func checkID(v *node) error {
	if !idPattern.MatchString(v.text) {
		return v.errorf("%q: must match %s", v.text, idPattern)
	}
	return nil
}

// checkResource wants an absolute URI without a fragment (RFC 8707, Section
// 2), in the one spelling in which tokens will be compared with it.
func checkResource(v *node) error {
	for _, c := range []byte(v.text) {
		if c <= ' ' || c >= 0x7f {
			return v.errorf("resource %q: a URI has visible ASCII characters only", v.text)
		}
	}
	u, err := url.Parse(v.text)
	switch {
	case err != nil, !u.IsAbs(), u.Host == "" && u.Opaque == "",
		u.Host == "" && (u.Scheme == "https" || u.Scheme == "http"):
		return v.errorf("resource %q: must be an absolute URI, such as https://reports.internal", v.text)
	case strings.Contains(v.text, "#"):
		return v.errorf("resource %q: must have no fragment (RFC 8707, Section 2)", v.text)
	case u.User != nil:
		return v.errorf("resource %q: must have no user information", v.text)
	case !strings.HasPrefix(v.text, u.Scheme+":"), u.Host != strings.ToLower(u.Host):
		return v.errorf("resource %q: write scheme and host in lower case", v.text)
	}
	return nil
}

func checkUpstream(v *node) error {
	host, port, err := net.SplitHostPort(v.text)
	if err != nil {
		return v.errorf("upstream %q: must be HOST:PORT", v.text)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 || strconv.FormatUint(n, 10) != port {
		return v.errorf("upstream %q: the port must be a number from 1 to 65535", v.text)
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		if ip.Zone() != "" || ip.String() != host {
			return v.errorf("upstream %q: write the address as %s", v.text, ip.WithZone(""))
		}
		return nil
	}
	last := host[strings.LastIndexByte(host, '.')+1:]
	if len(host) > 253 || !dnsPattern.MatchString(host) || strings.Trim(last, "0123456789") == "" {
		return v.errorf("upstream %q: the host must be an IP address or a DNS name in lower case", v.text)
	}
	return nil
}

// checkPath wants a path that every parser reads alike: what Envoy matches is
// what the upstream gets.
func checkPath(v *node) error {
	if !strings.HasPrefix(v.text, "/") {
		return v.errorf("path %q: must start with \"/\"", v.text)
	}
	if strings.Contains(v.text, "//") {
		return v.errorf("path %q: must have no empty segment", v.text)
	}
	if !pathPattern.MatchString(v.text) {
		return v.errorf("path %q: only letters, digits, \"-\", \".\", \"_\", \"~\" and \"/\" are allowed", v.text)
	}
	for segment := range strings.SplitSeq(v.text, "/") {
		if segment == "." || segment == ".." {
			return v.errorf("path %q: must have no segment %q", v.text, segment)
		}
	}
	return nil
}

func readTimeout(v *node) (time.Duration, error) {
	d, err := time.ParseDuration(v.text) // "" if it is no string
	if err != nil {
		return 0, v.errorf("\"timeout\" must be a duration with its unit, such as 5s")
	}
	// Envoy and the call door count in milliseconds, and take 0 for "none".
	if d <= 0 || d > MaxTimeout || d%time.Millisecond != 0 {
		return 0, v.errorf("timeout %q: must be whole milliseconds, above 0 and at most %v", v.text, MaxTimeout)
	}
	return d, nil
}

// fields is a mapping whose keys are all known.
type fields struct{ *node }

// keys checks that n is a mapping with no keys but the known.
func (n *node) keys(known ...string) (*fields, error) {
	if n.kind != mapping {
		return nil, n.errorf("must be %s, not %s", mapping, n.kind)
	}
	for _, f := range n.fields {
		if !slices.Contains(known, f.key.text) {
			return nil, f.key.errorf("unknown key %q; known are %s", f.key.text, strings.Join(known, ", "))
		}
	}
	return &fields{n}, nil
}

func (f *fields) find(key string) (field, bool) {
	i := slices.IndexFunc(f.fields, func(f field) bool { return f.key.text == key })
	if i < 0 {
		return field{}, false
	}
	return f.fields[i], true
}

func (f *fields) key(key string) (*node, bool) {
	e, ok := f.find(key)
	return e.key, ok
}

func (f *fields) get(key string) (*node, bool) {
	e, ok := f.find(key)
	return e.value, ok
}

// text returns the string under key, which must be there.
func (f *fields) text(key string) (*node, error) {
	v, ok := f.get(key)
	if !ok {
		return nil, f.errorf("%q is missing", key)
	}
	if v.kind != text {
		return nil, v.errorf("%q must be %s, not %s; put it in quotes", key, text, v.kind)
	}
	return v, nil
}

// id returns the id under key, which must be there.
func (f *fields) id(key string) (*node, error) {
	v, err := f.text(key)
	if err != nil {
		return nil, err
	}
	return v, checkID(v)
}

// list returns the items under key, which must be there.
func (f *fields) list(key string) ([]*node, error) {
	v, ok := f.get(key)
	if !ok {
		return nil, f.errorf("%q is missing", key)
	}
	if v.kind != sequence {
		return nil, v.errorf("%q must be %s, not %s", key, sequence, v.kind)
	}
	return v.items, nil
}

// strings returns the strings under key, sorted; nil if it is not there. Each
// passes check and is there once.
func (f *fields) strings(key string, check func(*node) error) ([]string, error) {
	if _, ok := f.find(key); !ok {
		return nil, nil
	}
	items, err := f.list(key)
	if err != nil {
		return nil, err
	}
	var out []string
	seen := map[string]bool{}
	for _, v := range items {
		if v.kind != text {
			return nil, v.errorf("%q must hold strings, not %s; put it in quotes", key, v.kind)
		}
		if err := check(v); err != nil {
			return nil, err
		}
		if seen[v.text] {
			return nil, v.errorf("%q is there twice in %q", v.text, key)
		}
		seen[v.text] = true
		out = append(out, v.text)
	}
	slices.Sort(out)
	return out, nil
}
