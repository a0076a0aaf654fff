// Package surface sees what MCP servers answer, where something has to be learnt
// from it: the session that an `initialize` opened, and the task that a
// `tools/call` became. Both are ids that the server makes up, by which the client
// goes on; the call door has to know whose they are.
//
// It is a reverse proxy beside Envoy. The call door marks a message whose answer
// has to be seen with a sealed mcp.Pass; Envoy sends such a message here and not
// to the MCP server, and every other one the direct way.
//
// Invariants:
//   - Without a Pass that is sealed by the door, unexpired and not yet used,
//     nothing is sent anywhere: whoever reaches the listener has gained nothing.
//   - Where a message goes is said by the Pass and the catalogue alone.
//   - What a client can see has been learnt before: a session id is remembered
//     before the header that has it is written, a task id before the bytes that
//     have it.
//   - An id belongs to the agent that first got it, and a task to the grants that
//     it was first told under. An answer that has another agent's id does not
//     reach the client.
//   - A session that is pinned stays so for as long as it is remembered.
//   - Nothing of a body is changed. What cannot be read passes unlearnt, which
//     denies: an id that nobody is known to own is nobody's.
//   - Whatever is kept is bounded, in total and for each agent.
//
// What was learnt is this process's. A client whose session is not known any more
// hears 404 at the door and starts anew (MCP 2025-11-25, "Session Management").
package surface

import (
	"cmp"
	"context"
	"errors"
	"io"
	"net/http"
	"time"

	"go.uber.org/zap"
	"golang.org/x/time/rate"

	"github.com/toolgrant/toolgrant/authz/mcp"
	"github.com/toolgrant/toolgrant/catalog"
)

// Config says what a Surface works with. Catalog, Seal and Logger are required.
type Config struct {
	Catalog *catalog.Catalog
	Seal    *mcp.Seal // the call door's
	Logger  *zap.Logger

	Now func() time.Time // nil: time.Now

	// MaxBody is the largest body of a request, in bytes; 0: DefaultMaxBody. No
	// smaller than the filter's max_request_bytes.
	MaxBody int
	// MaxExchanges is how many messages may be under way at a time; 0:
	// DefaultMaxExchanges. Each agent has at most a 32nd of them; and a quarter is
	// kept for each method, whatever the other one has under way.
	MaxExchanges int
}

// Defaults of Config.
const (
	DefaultMaxBody      = 1 << 20
	DefaultMaxExchanges = 1024 // and so many connections Envoy opens to a cluster, at most
)

// What is remembered, and for how long.
const (
	maxKept     = 100_000 // sessions, and as many tasks
	maxKeptEach = 1000    // of one agent: its longest-unused gives way
	keptTime    = 24 * time.Hour

	maxPasses     = 1 << 18 // that have been used and could be used again
	maxPassesEach = 1 << 14 // of one agent
)

// What is held back of an answer until it has been read, in bytes: about 1 GiB of
// all of DefaultMaxExchanges, 32 MiB of one agent's.
const (
	maxAnswer = 1 << 20 // of a JSON answer
	maxEvent  = 1 << 19 // of one event of a stream, which is held twice: its data as well
)

// Task is who started a task of an MCP server's, and by what.
type Task struct {
	Agent  string   // agent id
	Grants []string // grant ids, sorted; empty: baseline. Nobody changes them.
}

// Surface watches answers and remembers what they said. All methods may be called
// concurrently.
type Surface struct {
	cfg       Config
	transport *http.Transport
	gate      *gate
	used      *used
	sessions  *book[bool]     // pinned
	tasks     *book[[]string] // grant ids

	maxAnswer, maxEvent int            // bytes
	strangers           rate.Sometimes // how often they are told of
}

// New returns a Surface that knows nothing yet.
func New(cfg Config) *Surface {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	cfg.MaxBody = cmp.Or(cfg.MaxBody, DefaultMaxBody)
	cfg.MaxExchanges = cmp.Or(cfg.MaxExchanges, DefaultMaxExchanges)
	return &Surface{
		cfg:       cfg,
		transport: newTransport(),
		gate:      newGate(cfg.MaxExchanges, max(1, cfg.MaxExchanges/32)),
		used:      newUsed(maxPasses, maxPassesEach),
		// A session lives as long as it is used, a task for a time from its start.
		sessions:  newBook[bool](maxKept, maxKeptEach, keptTime, true),
		tasks:     newBook[[]string](maxKept, maxKeptEach, keptTime, false),
		maxAnswer: maxAnswer, maxEvent: maxEvent,
		strangers: rate.Sometimes{Interval: time.Minute},
	}
}

// Session returns the agent that opened the session of the server's, and whether
// PinSession was called of it since; known is false where none did, or that is
// forgotten. To ask is to use: it keeps the session for another 24 h.
func (s *Surface) Session(server, id string) (agent string, pinned, known bool) {
	return s.sessions.get(s.cfg.Now(), key{server, id})
}

// PinSession marks the session: a call by a grant that pins arguments went through
// it. That is a use of it. Of one that is not known, nothing is remembered.
func (s *Surface) PinSession(server, id string) {
	s.sessions.set(s.cfg.Now(), key{server, id}, true)
}

// EndSession forgets the session: the client has ended it (HTTP DELETE).
func (s *Surface) EndSession(server, id string) { s.sessions.drop(key{server, id}) }

// Task returns who started the task of the server's. It is known for 24 h, unless
// newer ones take its place.
func (s *Surface) Task(server, id string) (Task, bool) {
	agent, grants, known := s.tasks.get(s.cfg.Now(), key{server, id})
	return Task{Agent: agent, Grants: grants}, known
}

// serve takes one message. Its own answers have no body: 403 without a good Pass,
// 413 and 400 for a body, 502 where the server cannot be reached or says what it
// must not, 503 without room, 504 where the Pass ended first.
func (s *Surface) serve(w http.ResponseWriter, r *http.Request) {
	pass, server, ok := s.admit(r)
	if !ok {
		s.strangers.Do(func() {
			s.cfg.Logger.Warn("a request came to the surface without a good pass: who else than Envoy reaches its listener?")
		})
		w.Header().Set("Connection", "close")
		w.WriteHeader(http.StatusForbidden)
		return
	}
	if !s.gate.enter(pass.Agent, pass.Method) {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	defer s.gate.leave(pass.Agent, pass.Method)

	left := pass.Ends.Sub(s.cfg.Now())
	ctx, cancel := context.WithTimeout(r.Context(), left)
	defer cancel()
	a := &answer{pass: pass, w: w, control: http.NewResponseController(w)}
	_ = a.control.SetWriteDeadline(time.Now().Add(left + lateTime)) // a client that does not read

	body, status := s.body(w, r)
	if status != 0 {
		w.WriteHeader(status)
		return
	}
	if err := s.exchange(ctx, a, server, r.Header, body); err != nil {
		s.fail(ctx, a, err)
	}
}

// lateTime is what there is to say that the time was up.
const lateTime = time.Second

// admit opens the one Pass of a request, and uses it up.
func (s *Surface) admit(r *http.Request) (mcp.Pass, *catalog.Server, bool) {
	passes := r.Header.Values(mcp.PassHeader)
	if r.Method != http.MethodPost || len(passes) != 1 {
		return mcp.Pass{}, nil, false
	}
	now := s.cfg.Now()
	pass, ok := s.cfg.Seal.Open(passes[0], now)
	if !ok || pass.Agent == "" || !watched(pass.Method) {
		return mcp.Pass{}, nil, false
	}
	server, ok := s.cfg.Catalog.ServerByID(pass.Server)
	if !ok || server.MCP == nil || !s.used.take(pass, now) {
		return mcp.Pass{}, nil, false
	}
	return pass, server, true
}

// body reads the request's, which Envoy has whole: the check saw all of it. The
// status is 0, or the one to answer.
func (s *Surface) body(w http.ResponseWriter, r *http.Request) ([]byte, int) {
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, int64(s.cfg.MaxBody)))
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		return nil, http.StatusRequestEntityTooLarge
	}
	if err != nil {
		return nil, http.StatusBadRequest
	}
	return b, 0
}

// fail ends an exchange that went wrong: by a status while that can be told, else
// by cutting the answer, so that it cannot be taken for a whole one.
func (s *Surface) fail(ctx context.Context, a *answer, err error) {
	log := s.cfg.Logger.Debug // clients leave, and servers fail
	if errors.Is(err, errRefused) {
		log = s.cfg.Logger.Warn
	}
	log("an answer did not reach the client",
		zap.String("decision", a.pass.Decision), zap.String("server", a.pass.Server), zap.Error(err))
	if a.begun {
		panic(http.ErrAbortHandler)
	}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		a.w.WriteHeader(http.StatusGatewayTimeout)
		return
	}
	a.w.WriteHeader(http.StatusBadGateway)
}
