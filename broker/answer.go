package broker

import (
	"cmp"
	"encoding/json"
	"net/http"
	"strings"
	"time"

	"github.com/toolgrant/toolgrant/grants"
)

// style is how a family of endpoints answers: the API in our own form, the
// token endpoint as RFC 6749, Section 5.2 has it.
type style uint8

const (
	apiStyle style = iota
	oauthStyle
)

// answer maps a reason to what the caller gets: the status and error of the
// API, and the error of the token endpoint, whose status follows from it.
type answer struct {
	status int
	error  string
	oauth  string
	help   string
}

// answers holds every reason, once. RFC 8693, Section 2.2.2 has invalid_request
// for a bad subject token; RFC 9396, Section 5 and RFC 8707, Section 2 the
// others.
var answers = map[grants.Reason]answer{
	grants.Malformed:       {400, "invalid_request", "invalid_request", "the request cannot be read"},
	grants.Mismatch:        {400, "invalid_request", "invalid_request", "parts of the request disagree"},
	grants.TooLarge:        {413, "invalid_request", "invalid_request", "the request is over a stated size"},
	grants.Encoding:        {415, "invalid_request", "invalid_request", "the body is not in an encoding that is read"},
	grants.UnknownTool:     {400, "invalid_request", "invalid_scope", "the catalogue has no such tool"},
	grants.Unrepresentable: {400, "invalid_request", "invalid_request", "something asked has no exact value for policy"},

	grants.NoCredential:   {401, "invalid_token", "invalid_request", "send your identity token: Authorization: Bearer TOKEN"},
	grants.Ambiguous:      {401, "invalid_request", "invalid_request", "send one identity token, in one place"},
	grants.BadCredential:  {401, "invalid_token", "invalid_request", "the identity token is not one of a configured issuer's, or not genuine"},
	grants.ExpiredToken:   {401, "invalid_token", "invalid_request", "the identity token's time is over: get a new one"},
	grants.UnboundToken:   {401, "invalid_token", "invalid_request", "the identity token is bound to another sender"},
	grants.CredentialKind: {401, "invalid_token", "invalid_target", "the identity token is not meant for the broker"},
	grants.UnknownSession: {404, "not_found", "invalid_request", "there is no such session"},

	grants.NoGrant:       {403, "access_denied", "invalid_scope", "there is no such grant"},
	grants.UnknownGrant:  {404, "not_found", "invalid_request", "there is no such grant, or it is not yours"},
	grants.NotYet:        {403, "access_denied", "invalid_request", "the window has not begun"},
	grants.Expired:       {403, "access_denied", "invalid_request", "the window is over: ask for a new grant"},
	grants.Revoked:       {403, "access_denied", "invalid_request", "it has been revoked, before or while you asked: ask for a new grant"},
	grants.TaskEnded:     {409, "task_ended", "invalid_request", "the task has ended, and no grant is issued for it: start another"},
	grants.Superseded:    {403, "access_denied", "invalid_request", "a newer grant stands in its place: use that one"},
	grants.ToolChanged:   {403, "access_denied", "invalid_request", "the tool has changed"},
	grants.PolicyChanged: {403, "access_denied", "invalid_scope", "the policy of today does not permit it"},

	grants.WrongTool:        {403, "access_denied", "invalid_scope", "it is for another tool"},
	grants.ConstraintBroken: {403, "access_denied", "invalid_request", "a constraint does not hold"},
	grants.BudgetSpent:      {403, "access_denied", "invalid_request", "the budget is spent"},
	grants.Policy:           {403, "access_denied", "invalid_scope", "policy does not permit this: it may be you, the tool, the kind of task, the time or the number of calls; the operator finds what was asked on record, by the decision_id"},
	grants.PolicyError:      {403, "access_denied", "invalid_scope", "a policy could not be evaluated, so the answer is no; tell the operator the decision_id"},
	grants.Manifest:         {403, "access_denied", "invalid_scope", "the manifest of the task's kind does not cover this: ask for what it has, or have it changed"},

	grants.UnknownTask: {404, "not_found", "invalid_request", "there is no such task, or it is not yours"},
	grants.BadTTL:      {400, "invalid_request", "invalid_request", "that time cannot be granted: the identity token, the task or the asked time ends too soon"},
	grants.BadRequest:  {400, "invalid_request", "invalid_request", "the request does not fit together"},
	grants.Conflict:    {409, "conflict", "invalid_request", "another request was faster: ask again"},

	grants.Limit:        {429, "temporarily_unavailable", "temporarily_unavailable", "a limit is reached: try again later"},
	grants.NotFresh:     {503, "temporarily_unavailable", "temporarily_unavailable", "the view of grants is older than it may be: try again"},
	grants.CannotRecord: {503, "temporarily_unavailable", "temporarily_unavailable", "decisions cannot be recorded, so the answer is no"},
	grants.Undecided:    {503, "temporarily_unavailable", "temporarily_unavailable", "no decision could be made, so the answer is no; tell the operator the decision_id"},
}

// lookup finds the answer to a refusal; a reason out of the set is Undecided.
func (rep *reply) lookup() (answer, grants.Reason) {
	if a, ok := answers[rep.why]; ok {
		return a, rep.why
	}
	return answers[grants.Undecided], grants.Undecided
}

// help is what the caller is told to mend.
func (rep *reply) help() string {
	a, _ := rep.lookup()
	return cmp.Or(rep.detail, a.help)
}

// status is the HTTP status of a reply in this style.
func (s style) status(rep reply) int {
	if rep.why == grants.None {
		return rep.status
	}
	a, _ := rep.lookup()
	if s == apiStyle || a.status >= 413 {
		return a.status
	}
	if rep.code == invalidClient {
		return http.StatusUnauthorized // RFC 6749, Section 5.2
	}
	return http.StatusBadRequest
}

// answer writes a reply.
func (s style) answer(w http.ResponseWriter, r *request, rep reply) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store") // RFC 6749, Section 5.1
	h.Set("X-Content-Type-Options", "nosniff")
	status := s.status(rep)
	body := rep.body
	if rep.why != grants.None {
		body = s.refusal(r, rep)
		switch status {
		case http.StatusUnauthorized:
			h.Set("WWW-Authenticate", challenge(r, rep))
		case http.StatusTooManyRequests, http.StatusServiceUnavailable:
			h.Set("Retry-After", "1")
		}
	}
	write(w, status, body)
}

// answerTime is how long a caller may take to take its answer in.
const answerTime = 5 * time.Second

// hurry bounds the writing of an answer that is at hand: who does not read it
// keeps its HTTP/1 connection, or its HTTP/2 stream, no longer.
func hurry(w http.ResponseWriter) {
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(answerTime)) // else writeTime holds
}

// write sends a body as JSON. Whoever calls it has nothing in hand any more.
func write(w http.ResponseWriter, status int, body any) {
	hurry(w)
	w.WriteHeader(status)
	enc := json.NewEncoder(w) // it writes once, all of it
	enc.SetEscapeHTML(false)
	_ = enc.Encode(body) // the caller has gone: there is nobody to tell
}

// challenge is RFC 6750, Section 3; for a client that did not authenticate, the
// scheme by which it tried (RFC 6749, Section 5.2).
func challenge(r *request, rep reply) string {
	if rep.code == invalidClient {
		if scheme, _, _ := strings.Cut(r.Header.Get("Authorization"), " "); strings.EqualFold(scheme, "Basic") {
			return `Basic realm="toolgrant"`
		}
		return "Bearer"
	}
	switch rep.why {
	case grants.NoCredential:
		return "Bearer"
	case grants.Ambiguous:
		return `Bearer error="invalid_request"`
	}
	return `Bearer error="invalid_token"`
}

func (s style) refusal(r *request, rep reply) any {
	a, why := rep.lookup()
	help := rep.help()
	if s == oauthStyle {
		code := a.oauth
		if rep.code != "" {
			code = rep.code
		}
		return withAdvice(rep, map[string]string{"error": code, "error_description": help, "reason": why.String(), "decision_id": r.id})
	}
	return withAdvice(rep, map[string]string{"error": a.error, "reason": why.String(), "decision_id": r.id, "help": help})
}

func withAdvice(rep reply, body map[string]string) map[string]string {
	if rep.advice != "" {
		body["advice"] = rep.advice
	}
	return body
}
