package pdp

import (
	"context"
	"errors"
	"io"
	"mime"
	"net/http"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"go.uber.org/zap"

	"github.com/toolgrant/toolgrant/grants"
	"github.com/toolgrant/toolgrant/strictjson"
)

// Bounds of one request: more than a PDP of ours asks at once.
const (
	maxBody        = 4 << 20 // bytes
	maxEvaluations = 1024
)

var servedLimits = strictjson.Limits{Bytes: maxBody, Values: 1_000_000}

// HandlerConfig says what is served, and to whom.
type HandlerConfig struct {
	URL    string         // under which we are asked, policy_decision_point: https, or http to a loopback address
	Decide grants.Decider // required

	// Authorized says which PEP sent the request; ok is false for nobody that may
	// ask. It is believed in everything that it says of agents, tasks and grants, so
	// that a PEP of the least trust decides how far answers can be trusted.
	// Required.
	Authorized func(*http.Request) (pep string, ok bool)

	Logger *zap.Logger // required

	// Record writes each batch that was decided before it is answered, by the
	// decision's id that the answers carry. With an error there is no answer but 500.
	// Required.
	Record func(pep, decision string, in []grants.Input, out []grants.Decision) error
}

// Handler serves our decider as a PDP of AuthZEN's Authorization API 1.0: POST
// /access/v1/evaluation and /access/v1/evaluations below the path of the URL, and
// GET /.well-known/authzen-configuration, which anybody may read. What it is
// asked is as this package asks (see there), so that one toolgrant can decide for
// another. What is no question of ours is denied, with the reason in the
// decision's context; status 400 is for what AuthZEN calls malformed.
func Handler(cfg HandlerConfig) (http.Handler, error) {
	u, err := readURL(cfg.URL)
	if err != nil {
		return nil, err
	}
	if cfg.Decide == nil || cfg.Authorized == nil || cfg.Record == nil || cfg.Logger == nil {
		return nil, errors.New("decider, authorization, record and logger are required")
	}
	h := &handler{cfg: cfg, metadata: newMetadata(cfg.URL)}
	base := strings.TrimSuffix(u.EscapedPath(), "/")
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+wellKnown+base, h.serveMetadata)
	mux.HandleFunc("POST "+base+evaluationPath, h.door(h.evaluateOne))
	mux.HandleFunc("POST "+base+evaluationsPath, h.door(h.evaluateMany))
	return echo(mux), nil
}

type handler struct {
	cfg      HandlerConfig
	metadata metadata
}

type metadata struct {
	PDP  string `json:"policy_decision_point"`
	One  string `json:"access_evaluation_endpoint"`
	Many string `json:"access_evaluations_endpoint"`
}

func newMetadata(id string) metadata {
	base := strings.TrimSuffix(id, "/")
	return metadata{id, base + evaluationPath, base + evaluationsPath}
}

// echo gives a request's id back, with whatever answer ("Request Identification").
func echo(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if id := r.Header.Get("X-Request-ID"); id != "" {
			w.Header().Set("X-Request-ID", id)
		}
		next.ServeHTTP(w, r)
	})
}

func (h *handler) serveMetadata(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, h.metadata)
}

// fault is an answer that is no decision ("Error Responses").
type fault struct {
	status int
	text   string
}

func malformed(text string) *fault { return &fault{http.StatusBadRequest, text} }

// door lets in who may ask, reads the body, and writes the answer or the fault.
func (h *handler) door(answer func(ctx context.Context, pep string, body []byte) (any, *fault)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		pep, ok := h.cfg.Authorized(r)
		if !ok {
			w.Header().Set("WWW-Authenticate", "Bearer")
			http.Error(w, "who asks must say who it is", http.StatusUnauthorized)
			return
		}
		body, no := readBody(w, r)
		var out any
		if no == nil {
			out, no = answer(r.Context(), pep, body)
		}
		if no != nil {
			http.Error(w, no.text, no.status)
			return
		}
		writeJSON(w, out)
	}
}

func readBody(w http.ResponseWriter, r *http.Request) ([]byte, *fault) {
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		return nil, malformed("the body must be application/json")
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if _, over := errors.AsType[*http.MaxBytesError](err); over {
		return nil, &fault{http.StatusRequestEntityTooLarge, "the body is too large"}
	}
	if err != nil {
		return nil, malformed("the body cannot be read")
	}
	return body, nil
}

func writeJSON(w http.ResponseWriter, v any) {
	text, err := json.Marshal(v)
	if err != nil {
		http.Error(w, "the answer cannot be written", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	_, _ = w.Write(text) // who asked is gone
}

// verdict is AuthZEN's Decision as we write it.
type verdict struct {
	Decision bool           `json:"decision"`
	Context  verdictContext `json:"context"`
}

type verdictContext struct {
	ID       string        `json:"decision_id,omitempty"`
	Revision string        `json:"revision,omitempty"`
	Reason   string        `json:"reason,omitempty"` // a grants.Reason
	Policies []string      `json:"policies,omitempty"`
	Advice   string        `json:"advice,omitempty"`
	Error    *verdictError `json:"error,omitempty"` // why it was no question
}

type verdictError struct {
	Status  int    `json:"status"`
	Message string `json:"message"`
}

func (h *handler) evaluateOne(ctx context.Context, pep string, body []byte) (any, *fault) {
	var e served
	if err := strictjson.UnmarshalOpen(body, servedLimits, &e); err != nil {
		return nil, malformed(err.Error())
	}
	if err := e.check(); err != nil {
		return nil, malformed(err.Error())
	}
	out, no := h.decide(ctx, pep, []served{e})
	if no != nil {
		return nil, no
	}
	return out[0], nil
}

// evaluateMany answers a batch. Without evaluations it is a single one ("The
// Access Evaluations API Request").
func (h *handler) evaluateMany(ctx context.Context, pep string, body []byte) (any, *fault) {
	var all struct {
		served                       // defaults
		Evaluations []jsontext.Value `json:"evaluations"`
		Options     struct {
			Semantic *string `json:"evaluations_semantic"`
		} `json:"options"`
	}
	if err := strictjson.UnmarshalOpen(body, servedLimits, &all); err != nil {
		return nil, malformed(err.Error())
	}
	if len(all.Evaluations) == 0 {
		return h.evaluateOne(ctx, pep, body)
	}
	if len(all.Evaluations) > maxEvaluations {
		return nil, malformed("there are too many evaluations in one request")
	}
	stopAt, no := semantic(all.Options.Semantic)
	if no != nil {
		return nil, no
	}
	items := make([]served, len(all.Evaluations))
	for i, text := range all.Evaluations {
		items[i] = all.served.with(text)
	}
	out, no := h.decide(ctx, pep, items)
	if no != nil {
		return nil, no
	}
	for i := range out {
		if stopAt != nil && out[i].Decision == *stopAt {
			out = out[:i+1] // the rest was decided, and is not told
			break
		}
	}
	return map[string]any{"evaluations": out}, nil
}

// semantic gives the decision after which no other is told; nil: all are
// ("Evaluations semantics").
func semantic(name *string) (*bool, *fault) {
	yes, no := true, false
	if name == nil {
		return nil, nil
	}
	switch *name {
	case executeAll:
		return nil, nil
	case denyOnDeny:
		return &no, nil
	case permitFirst:
		return &yes, nil
	}
	return nil, malformed("options: evaluations_semantic must be " + executeAll + ", " + denyOnDeny + " or " + permitFirst)
}

// with is the evaluation of a batch with these defaults: each member is its own,
// whole, or the default's ("Default values"). One that cannot be read is empty,
// and fails alone ("Errors").
func (e served) with(text jsontext.Value) served {
	var own served
	if err := strictjson.UnmarshalOpen(text, servedLimits, &own); err != nil {
		return served{}
	}
	if own.Subject == nil {
		own.Subject = e.Subject
	}
	if own.Action == nil {
		own.Action = e.Action
	}
	if own.Resource == nil {
		own.Resource = e.Resource
	}
	if own.Context == nil {
		own.Context = e.Context
	}
	return own
}

// decide answers each evaluation: those that are questions of ours by one batch,
// and the others with no.
func (h *handler) decide(ctx context.Context, pep string, items []served) ([]verdict, *fault) {
	out := make([]verdict, len(items))
	var in []grants.Input
	var places []int
	at := time.Now()
	for i := range items {
		err := items[i].check()
		status := http.StatusBadRequest
		if err == nil {
			status = http.StatusUnprocessableEntity
			var q grants.Input
			if q, err = items[i].input(at); err == nil {
				in, places = append(in, q), append(places, i)
				continue
			}
		}
		out[i].Context = verdictContext{Reason: grants.Malformed.String(), Error: &verdictError{status, err.Error()}}
	}
	if len(in) == 0 {
		return out, nil
	}
	ds, err := h.cfg.Decide(ctx, in)
	if err == nil && len(ds) != len(in) {
		err = errors.New("not one decision for each question")
	}
	id := grants.NewID(grants.DecisionPrefix)
	if err != nil {
		h.cfg.Logger.Error("deciding for a PEP", zap.String("pep", pep), zap.String("decision", id), zap.Error(err))
		return nil, &fault{http.StatusInternalServerError, "no decision could be made: " + id}
	}
	if err := h.cfg.Record(pep, id, in, ds); err != nil {
		return nil, &fault{http.StatusInternalServerError, "the decision cannot be recorded, so there is none: " + id}
	}
	for i, d := range ds {
		why := d.Refusal()
		v := verdict{Decision: why == grants.None, Context: verdictContext{ID: id, Revision: d.Revision.String(), Policies: d.Policies}}
		if why != grants.None {
			v.Context.Reason, v.Context.Advice = why.String(), d.Advice
		}
		out[places[i]] = v
	}
	return out, nil
}
