package catalog

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// authorization is the one header that may carry a credential and could never be
// an input of a tool; x-grant is another by old custom.
const authorization = "authorization"

// standing are headers that every tool or MCP server gets as the client sent
// them, so that a credential in one would be handed to tools that name another.
// So are all that begin with mcp- (MCP, Streamable HTTP).
var standing = []string{"accept", "accept-encoding", "accept-language", "user-agent", "traceparent", "tracestate", "last-event-id", "origin"}

// CheckCredentialHeader refuses a header name that cannot carry a credential and
// be kept from the tools: one with another use, or one that parsers spell in
// more than one way.
func CheckCredentialHeader(name string) error {
	taken := slices.Contains(forbiddenHeaders, name) && name != authorization && name != "x-grant" ||
		slices.Contains(standing, name) ||
		slices.ContainsFunc(append([]string{"content-", "mcp-"}, forbiddenPrefixes...), func(p string) bool { return strings.HasPrefix(name, p) })
	switch {
	case taken:
		return fmt.Errorf("credential header %q: that header has another use", name)
	case !headerPattern.MatchString(name):
		return fmt.Errorf("credential header %q: must be a lower-case HTTP field name of at most 64 characters without an underscore", name)
	}
	return nil
}

// CredentialIn is the header that carries the credential of the tool's calls: its
// own, or def, which is the configuration's.
func (t *Tool) CredentialIn(def string) string { return cmp.Or(t.Credential, def) }

// CredentialIn is the header that carries the credential of what is sent to the
// server: its own, or def, which is the configuration's. Tools of an HTTP service
// may have another.
func (s *Server) CredentialIn(def string) string { return cmp.Or(s.Credential, def) }

// CredentialHeaders are all headers that carry a credential to some tool or
// server, def (the configuration's) included; sorted. Not one of them may reach any tool,
// since a token sent in the wrong one is a token all the same.
func (c *Catalog) CredentialHeaders(def string) []string {
	all := []string{def}
	for i := range c.Servers {
		all = append(all, c.Servers[i].CredentialIn(def)) // an MCP server may have no tools
	}
	for _, t := range c.tools {
		all = append(all, t.CredentialIn(def))
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// CheckCredentials says whether every credential can be kept from every tool
// when def is the header of the tools that name none.
func (c *Catalog) CheckCredentials(def string) error {
	if err := CheckCredentialHeader(def); err != nil {
		return err
	}
	return c.keptCredentials(def, func(_ *Tool, err error) error { return err })
}

// keptCredentials returns the first fault, as at places it. An empty def is known
// later.
func (c *Catalog) keptCredentials(def string, at func(*Tool, error) error) error {
	all := c.CredentialHeaders(def)
	for t := range c.AllTools() {
		for _, h := range all {
			if t.Header[h] != nil {
				return at(t, fmt.Errorf("tool %s: its input header %q is the credential header of some tool or server, and so reaches no tool", t.ID, h))
			}
		}
		if t.PassAuthorization && t.CredentialIn(def) == authorization {
			return at(t, fmt.Errorf("tool %s: pass_authorization would hand the grant token to the tool, "+
				"because %q is its credential header; give it another one, such as credential: x-tool-token", t.ID, authorization))
		}
	}
	return nil
}

// credential reads the header name under "credential"; "" if it is not there.
func (f *fields) credential() (string, error) {
	if _, ok := f.Find("credential"); !ok {
		return "", nil
	}
	v, err := f.Text("credential")
	if err != nil {
		return "", err
	}
	if err := CheckCredentialHeader(v.Text); err != nil {
		return "", v.Errorf("%v", err)
	}
	return v.Text, nil
}
