package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/toolgrant/toolgrant/catalog"
)

func catalogueImportCommand() *cobra.Command {
	var (
		flags      mcpFlags
		opts       importOptions
		serverOnly bool
	)
	cmd := &cobra.Command{
		Use:   "import --mcp URL [--id ID] [--server-only]",
		Short: "Write the catalogue of a running MCP server",
		Long: `Ask a running MCP server what tools it has, and print a catalogue of them: names,
the types of their arguments, and for each a pin, which is the digest of its
descriptor (name, description, schemas and annotations). A grant is for the tool as
the catalogue has it, pin included: with another pin there, it is good no more.
Whether the server still is what was pinned, "toolgrant catalogue diff" finds out.

The server is asked directly and not through Envoy, in each revision of MCP that
toolgrant knows, for its tools alone. No tool is called. A tool that calls others by
their names (a meta-tool) looks like any other: a NOTE stands where one could be one.

The catalogue is yours, and the server only a source: what it says of itself
(descriptions, readOnlyHint) is shown in comments and decides nothing. Tools are
in no set before you put them into one. What its schemas say in words that the
catalogue does not have is "type: any" and "opaque": it goes through, and policy
does not see it. The comment beside it says why.`,
		Example: `  toolgrant catalogue import --mcp http://127.0.0.1:9000/mcp > tools.yaml
  toolgrant catalogue check tools.yaml

  # One more server for a catalogue that is there already.
  toolgrant catalogue import --mcp https://mcp.example/mcp --id tickets \
    --bearer-file token --server-only >> tools.yaml`,
		Args: operands(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if flags.url == "" {
				return usagef("--mcp is missing: the URL at which the server speaks MCP")
			}
			var err error
			if opts.Header, err = flags.header(cmd); err != nil {
				return err
			}
			opts.URL, opts.Timeout, opts.Errs = flags.url, flags.timeout.Duration, cmd.ErrOrStderr()
			server, err := importMCP(cmd.Context(), opts)
			if err != nil {
				return err
			}
			text := server.YAML()
			if serverOnly {
				text = server.Entry()
			}
			return output(cmd, string(text))
		},
	}
	flags.register(cmd, "`URL` at which the server speaks MCP")
	cmd.Flags().StringVar(&opts.ID, "id", "", "`ID` of the server in the catalogue (default: from its host, or from its name for itself)")
	cmd.Flags().StringVar(&opts.Resource, "resource", "", "`URI` by which clients will call it, which is the audience of its tokens (default https://ID.internal and the path)")
	cmd.Flags().StringVar(&opts.Path, "path", "", "`PATH` of it at Envoy (default /mcp/ID)")
	cmd.Flags().BoolVar(&serverOnly, "server-only", false, "print only an item for the list of servers")
	return cmd
}

// importOptions say which server to import, and as what.
type importOptions struct {
	URL      string        // at which it speaks MCP; http or https
	ID       string        // "": from its host, or from its name
	Resource string        // "": made up
	Path     string        // at Envoy; "": /mcp/ID
	Header   http.Header   // of requests to it; nil: none
	Timeout  time.Duration // of all of it; 0: 30 s
	Errs     io.Writer     // is told of a slow server, and warned; nil: nobody is
}

// importedServer is a running server as a catalogue has it. It was parsed as
// one.
type importedServer struct {
	url, id, resource, upstream, path, upstreamPath string

	resourceMadeUp bool
	tls            bool // its URL is https
	revisions      []string
	tools          []*importedTool // sorted by name
	parsed         *catalog.Catalog
}

type importedTool struct {
	liveTool
	id     string
	mapped *mappedSchema
}

// importMCP asks a running server for its tools, and makes a catalogue of them.
func importMCP(ctx context.Context, o importOptions) (*importedServer, error) {
	u, err := parseMCPURL(o.URL)
	if err != nil {
		return nil, err
	}
	i := &importedServer{url: u.String(), upstream: upstreamOf(u), upstreamPath: u.EscapedPath(), tls: u.Scheme == "https"}
	// What is wrong with what was typed is said before the server is asked.
	for _, check := range []struct {
		flag, value string
		legal       *regexp.Regexp
	}{{"--id", o.ID, serverID}, {"--path", o.Path, exactPath}, {"--mcp", i.upstreamPath, exactPath}} {
		if check.value != "" && !check.legal.MatchString(check.value) {
			return nil, usagef("%s %s: a catalogue cannot have that; it must match %s", check.flag, shown(check.value, maxShown), check.legal)
		}
	}
	live, err := fetchTools(ctx, mcpTarget{i.url, o.Header, o.Timeout, o.Errs}, catalog.Revisions(), true)
	if err != nil {
		return nil, err
	}
	i.id = cmp.Or(o.ID, serverIDOf(u, live.Name))
	i.path = cmp.Or(o.Path, "/mcp/"+i.id)
	i.resource, i.resourceMadeUp = o.Resource, o.Resource == ""
	if i.resourceMadeUp {
		i.resource = "https://" + strings.Trim(strings.NewReplacer("_", "-", ".", "-").Replace(i.id), "-") + ".internal" + i.path
	}
	i.revisions = live.Revisions
	for _, t := range live.Tools {
		if !mcpToolName.MatchString(t.Name) {
			return nil, fmt.Errorf("%s: the tool %s cannot be in a catalogue: a name there has 1 to 128 printable ASCII characters, and no blanks", i.url, strconv.QuoteToASCII(shown(t.Name, 128)))
		}
		i.tools = append(i.tools, &importedTool{liveTool: t, mapped: mapSchema(t.Input)})
	}
	slices.SortFunc(i.tools, func(a, b *importedTool) int { return strings.Compare(a.Name, b.Name) })
	giveIDs(i.tools)
	return i, i.check()
}

// check holds that what is printed is read as what was meant.
func (i *importedServer) check() error {
	text := i.YAML()
	if len(text) > catalog.MaxSize {
		return fmt.Errorf("%s: its %s make a catalogue of %d bytes, which is more than the %d that one may have", i.url, count(len(i.tools), "tool"), len(text), catalog.MaxSize)
	}
	var err error
	if i.parsed, err = catalog.Parse("the catalogue of "+i.url, text); err != nil {
		return err
	}
	wrong := errors.New(i.url + ": the catalogue that was made of it says something else; this is a fault of toolgrant, please report it")
	s, ok := i.parsed.ServerByID(i.id)
	if !ok || len(s.Tools) != len(i.tools) || s.Upstream != i.upstream || s.Resource != i.resource {
		return wrong
	}
	for _, t := range i.tools {
		got, ok := s.ToolByMCPName(t.Name)
		if !ok || got.Name != t.id || got.Pin != t.Pin || !reflect.DeepEqual(got.Arguments, t.mapped.input) {
			return wrong
		}
	}
	return nil
}

var (
	serverID    = regexp.MustCompile(`^[a-z0-9][a-z0-9_.-]{0,62}$`)
	exactPath   = regexp.MustCompile(`^(/[A-Za-z0-9._~-]+)*/?$`)
	mcpToolName = regexp.MustCompile("^[!-~]{1,128}$")
)

func upstreamOf(u *url.URL) string {
	port := cmp.Or(u.Port(), map[string]string{"http": "80", "https": "443"}[u.Scheme])
	host := strings.ToLower(u.Hostname())
	if ip, err := netip.ParseAddr(host); err == nil {
		host = ip.String()
	}
	return net.JoinHostPort(host, port)
}

// serverIDOf makes an id of the first word of its host that says something,
// since whoever typed the URL chose that one; of the server's own name for itself
// only where the host is an address.
func serverIDOf(u *url.URL, name string) string {
	host := strings.ToLower(u.Hostname())
	if _, err := netip.ParseAddr(host); err == nil || host == "localhost" {
		return slug(name, "mcp")
	}
	labels := strings.Split(host, ".")
	says := slices.IndexFunc(labels, func(l string) bool { return !slices.Contains([]string{"mcp", "api", "www"}, l) })
	return slug(labels[max(says, 0)], "mcp")
}

// giveIDs gives the tools ids of their own, the same each time: those whose name
// is an id already have it.
func giveIDs(tools []*importedTool) {
	taken := map[string]bool{}
	for _, t := range tools {
		if serverID.MatchString(t.Name) {
			t.id, taken[t.Name] = t.Name, true
		}
	}
	for _, t := range tools {
		if t.id != "" {
			continue
		}
		base := slug(t.Name, "tool")
		t.id = base
		for n := 2; taken[t.id]; n++ {
			suffix := "_" + strconv.Itoa(n)
			t.id = base[:min(len(base), 63-len(suffix))] + suffix
		}
		taken[t.id] = true
	}
}

// slug makes an id of a name: getURL becomes get_url.
func slug(name, otherwise string) string {
	var b bytes.Buffer
	var before rune
	for _, r := range name {
		switch {
		case 'A' <= r && r <= 'Z':
			if 'a' <= before && before <= 'z' || '0' <= before && before <= '9' {
				b.WriteByte('_')
			}
			b.WriteRune(r - 'A' + 'a')
		case 'a' <= r && r <= 'z', '0' <= r && r <= '9', r == '.', r == '-':
			b.WriteRune(r)
		default:
			b.WriteByte('_')
		}
		before = r
	}
	id := strings.Trim(b.String(), "_.-")
	return cmp.Or(strings.TrimRight(id[:min(len(id), 63)], "_.-"), otherwise)
}

// mayCallOthers reports whether the tool looks like a meta-tool, whose arguments name
// another one: it takes a text and something of which nothing is said, and one of
// them is called so. The pointers are those of the likeliest two.
func (t *importedTool) mayCallOthers() (name, arguments string, may bool) {
	properties := t.mapped.input.Properties
	for _, p := range slices.Sorted(maps.Keys(properties)) {
		s, at := properties[p], "/"+escapePointer(p)
		switch {
		case s.Type == "string" && len(s.Enum) == 0:
			likely := namesTools.MatchString(p)
			if may = may || likely; name == "" || likely {
				name = at
			}
		case s.Type == "any":
			likely := holdsArguments.MatchString(p)
			if may = may || likely; arguments == "" || likely {
				arguments = at
			}
		}
	}
	return name, arguments, may && name != "" && arguments != ""
}

var (
	namesTools     = regexp.MustCompile(`(?i)name|tool|function|command|action|method`)
	holdsArguments = regexp.MustCompile(`(?i)^args?$|argument|param|input|payload`)
)

// hints are what the tool says that it does, for the comment beside its sets.
func (t *importedTool) hints() string {
	var said []string
	for _, name := range []string{"readOnlyHint", "destructiveHint", "idempotentHint", "openWorldHint"} {
		if v, ok := t.Annotations[name].(bool); ok {
			said = append(said, name+" "+strconv.FormatBool(v))
		}
	}
	if len(said) == 0 {
		return ""
	}
	return "; it says: " + strings.Join(said, ", ")
}
