package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/toolgrant/toolgrant/authz/mcp"
)

const (
	maxMCPTools    = 10_000
	maxMCPPages    = 1_000
	defaultMCPWait = 30 * time.Second
)

// liveServer is what a running MCP server says of itself. None of it decides
// anything.
type liveServer struct {
	Name      string   // "" if it says none
	Revisions []string // of MCP, of those that were tried; sorted
	Tools     []liveTool
}

// liveTool is a tool as the server lists it.
type liveTool struct {
	Name        string // unique on the server
	Description string
	Pin         [32]byte
	Input       any            // its input schema, as strictjson gives it
	Annotations map[string]any // nil: none
}

// mcpTarget is where an MCP server is called.
type mcpTarget struct {
	url    string
	header http.Header   // besides the protocol's; nil: none
	wait   time.Duration // for all of it; 0: 30 s
	errs   io.Writer     // is told of a slow server, and warned; nil: nobody is
}

// fetchTools asks a running server directly, by Streamable HTTP, for its tools,
// in the newest of the revisions that it speaks. With all set, it also finds out
// which of the others it speaks.
func fetchTools(ctx context.Context, target mcpTarget, revisions []string, all bool) (*liveServer, error) {
	if target.wait == 0 {
		target.wait = defaultMCPWait
	}
	if u, err := url.Parse(target.url); err == nil && target.errs != nil && u.Scheme == "http" && len(target.header) > 0 && !isLoopback(u.Hostname()) {
		fmt.Fprintf(target.errs, "warning: %s is plain HTTP: whoever is on the way can read the credential\n", shown(target.url, maxShown))
	}
	within, cancel := context.WithTimeout(ctx, target.wait)
	defer cancel()
	through := &http.Transport{
		Proxy:              http.ProxyFromEnvironment,
		TLSClientConfig:    &tls.Config{MinVersion: tls.VersionTLS12},
		DisableCompression: true, // what is counted is what comes
	}
	defer through.CloseIdleConnections()
	f := fetcher{
		target:  target,
		answers: &answers{ctx: within, through: through, header: target.header, left: maxMCPAnswers},
		slow:    reportSlow(target.errs, "still asking "+shown(target.url, maxShown)),
	}
	defer f.slow.stop()
	live, err := f.all(within, revisions, all)
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case within.Err() != nil:
		return nil, fmt.Errorf("%s: no whole answer within %v; a longer --timeout may help", target.url, target.wait)
	case err != nil:
		// Words of the server's may be in it.
		return nil, fmt.Errorf("%s: %s", target.url, printable(err.Error()))
	}
	return live, nil
}

type fetcher struct {
	target  mcpTarget
	answers *answers
	slow    *slowness
}

func (f *fetcher) all(ctx context.Context, revisions []string, all bool) (*liveServer, error) {
	var live *liveServer
	var spoken, foreign []string
	var last error
	for _, revision := range slices.Backward(slices.Sorted(slices.Values(revisions))) {
		// A server that does not speak what it is asked for says what it does.
		if slices.Contains(spoken, revision) {
			continue
		}
		f.slow.now("does it speak MCP " + revision + "?")
		session, err := f.connect(ctx, revision)
		if failed := f.answers.failed(); failed != nil {
			return nil, failed
		}
		if err != nil {
			last = err
			continue
		}
		speaks := session.InitializeResult().ProtocolVersion
		if !slices.Contains(revisions, speaks) {
			foreign = append(foreign, speaks)
		} else if spoken = append(spoken, speaks); live == nil {
			live, err = f.list(ctx, session)
		}
		_ = session.Close() // a courtesy: the server may not know sessions
		if err != nil {
			return nil, err
		}
		if live != nil && !all {
			break
		}
	}
	switch {
	case live != nil:
		slices.Sort(spoken)
		live.Revisions = slices.Compact(spoken)
		return live, nil
	case len(foreign) > 0:
		return nil, fmt.Errorf("it speaks MCP %s, and none of %s", strings.Join(slices.Compact(foreign), ", "), strings.Join(revisions, ", "))
	}
	return nil, fmt.Errorf("it does not speak MCP over Streamable HTTP there: %w", last)
}

func (f *fetcher) connect(ctx context.Context, revision string) (*sdk.ClientSession, error) {
	client := sdk.NewClient(&sdk.Implementation{Name: "toolgrant", Version: buildInfo().Version},
		&sdk.ClientOptions{Capabilities: &sdk.ClientCapabilities{}}) // nothing that a server could ask back
	return client.Connect(ctx, &sdk.StreamableClientTransport{
		Endpoint:             f.target.url,
		HTTPClient:           &http.Client{Transport: f.answers, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
		MaxRetries:           -1,
		DisableStandaloneSSE: true,
	}, &sdk.ClientSessionOptions{ProtocolVersion: revision})
}

// list gets all pages of the server's tools.
func (f *fetcher) list(ctx context.Context, session *sdk.ClientSession) (*liveServer, error) {
	said := session.InitializeResult()
	live := &liveServer{}
	if said.ServerInfo != nil {
		live.Name = said.ServerInfo.Name
	}
	if said.Capabilities == nil || said.Capabilities.Tools == nil {
		return live, nil
	}
	seen := map[string]bool{}    // names of tools
	cursors := map[string]bool{} // that were followed
	cursor := ""
	for {
		f.slow.now(fmt.Sprintf("%d tools so far", len(live.Tools)))
		_, err := session.ListTools(ctx, &sdk.ListToolsParams{Cursor: cursor})
		page := f.answers.take()
		switch failed := f.answers.failed(); {
		case failed != nil:
			return nil, failed
		case page == nil:
			return nil, fmt.Errorf("listing its tools: %w", cmp.Or(err, errors.New("no answer")))
		}
		entries, ok := page["tools"].([]any)
		if !ok {
			return nil, errors.New("its list of tools has none of \"tools\"")
		}
		for _, entry := range entries {
			tool, err := readLiveTool(entry)
			if err != nil {
				return nil, err
			}
			if seen[tool.Name] {
				return nil, fmt.Errorf("it lists the tool %q twice", shown(tool.Name, 128))
			}
			seen[tool.Name] = true
			if live.Tools = append(live.Tools, tool); len(live.Tools) > maxMCPTools {
				return nil, fmt.Errorf("it lists more than %d tools", maxMCPTools)
			}
		}
		cursors[cursor] = true
		cursor, _ = page["nextCursor"].(string)
		switch {
		case cursor == "":
			return live, nil
		case cursors[cursor]:
			return nil, errors.New("its list of tools leads back to a page that it had before")
		case len(cursors) == maxMCPPages:
			return nil, fmt.Errorf("its list of tools has more than %d pages", maxMCPPages)
		}
	}
}

func readLiveTool(entry any) (liveTool, error) {
	members, _ := entry.(map[string]any)
	name, _ := members["name"].(string)
	if name == "" {
		return liveTool{}, errors.New("it lists a tool without a name")
	}
	pin, err := mcp.Descriptor(entry)
	if err != nil {
		return liveTool{}, fmt.Errorf("the tool %q: its descriptor: %w", shown(name, 128), err)
	}
	t := liveTool{Name: name, Pin: pin, Input: members["inputSchema"]}
	t.Description, _ = members["description"].(string)
	t.Annotations, _ = members["annotations"].(map[string]any)
	return t, nil
}

// parseMCPURL reads the URL of a server.
func parseMCPURL(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil, u.Scheme != "http" && u.Scheme != "https", u.Hostname() == "":
		return nil, usagef("--mcp %s: write the URL at which the server speaks MCP, such as http://127.0.0.1:9000/mcp", shown(text, maxShown))
	case u.User != nil:
		return nil, usagef("--mcp: no user and password in the URL, which every user of this machine can see; put a token into a file for --bearer-file")
	case strings.ContainsAny(text, "?#"):
		return nil, usagef("--mcp: no query and no fragment in the URL: a catalogue has the path alone")
	}
	if u.Path == "" {
		u.Path = "/"
	}
	return u, nil
}

// slowness tells people that something takes its time.
type slowness struct {
	mu    sync.Mutex
	doing string
	done  chan struct{}
	ended sync.WaitGroup
}

const slow = 3 * time.Second

// reportSlow writes a line on w whenever another 3 s have gone by.
func reportSlow(w io.Writer, what string) *slowness {
	s := &slowness{done: make(chan struct{})}
	if w == nil {
		return s
	}
	s.ended.Go(func() {
		tick := time.NewTicker(slow)
		defer tick.Stop()
		for {
			select {
			case <-s.done:
				return
			case <-tick.C:
				s.mu.Lock()
				fmt.Fprintf(w, "%s: %s\n", what, s.doing)
				s.mu.Unlock()
			}
		}
	})
	return s
}

func (s *slowness) now(doing string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.doing = doing
}

func (s *slowness) stop() {
	close(s.done)
	s.ended.Wait()
}
