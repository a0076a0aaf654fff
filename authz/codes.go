package authz

import "github.com/toolgrant/toolgrant/grants"

// answer is how this door tells one reason. challenge is WWW-Authenticate
// (RFC 6750, Section 3).
type answer struct {
	status    int
	error     string
	challenge string
	help      string
}

const (
	invalidRequest    = `Bearer error="invalid_request"`
	invalidToken      = `Bearer error="invalid_token"`
	insufficientScope = `Bearer error="insufficient_scope"`

	askAgain = "ask the broker for a grant of this tool for your task, and call again with its token"
)

// answers maps each reason to what the caller gets, once. A reason that this
// door never gives is there too: a denial must not depend on who gives it.
var answers = map[grants.Reason]answer{
	grants.Malformed:       {400, "invalid_request", "", "the request can be read in more than one way, or in none"},
	grants.Mismatch:        {400, "invalid_request", "", "the request does not fit the tool"},
	grants.TooLarge:        {413, "invalid_request", "", "the request is over a stated size"},
	grants.Encoding:        {415, "invalid_request", "", "send application/json in UTF-8, with no content-encoding"},
	grants.UnknownTool:     {403, "access_denied", "", "no such tool"},
	grants.Unrepresentable: {403, "access_denied", "", "an argument has no exact value for policy: leave it out, or have the catalogue list it as opaque"},

	grants.NoCredential:   {401, "invalid_token", `Bearer`, "send the grant's token"},
	grants.Ambiguous:      {401, "invalid_request", invalidRequest, "send one credential, in one header"},
	grants.BadCredential:  {401, "invalid_token", invalidToken, "the token is not one that this tool accepts: " + askAgain},
	grants.ExpiredToken:   {401, "invalid_token", invalidToken, "the token's time is over: " + askAgain},
	grants.UnboundToken:   {401, "invalid_token", invalidToken, "the token is bound to another sender"},
	grants.CredentialKind: {401, "invalid_token", invalidToken, "the identity token is not meant for this tool alone: " + askAgain},

	grants.UnknownSession: {404, "invalid_request", "", "the MCP session is not known here: start a new one, without a session id (initialize)"},

	grants.NoGrant:       {403, "insufficient_scope", insufficientScope, "there is no grant for this tool: " + askAgain},
	grants.UnknownGrant:  {403, "insufficient_scope", insufficientScope, "the token's grant is not known here: " + askAgain},
	grants.NotYet:        {403, "insufficient_scope", insufficientScope, "the grant's window has not begun"},
	grants.Expired:       {403, "insufficient_scope", insufficientScope, "the grant's window is over: " + askAgain},
	grants.Revoked:       {403, "insufficient_scope", insufficientScope, "the grant was revoked"},
	grants.TaskEnded:     {403, "insufficient_scope", insufficientScope, "the task has ended, and its grants with it"},
	grants.Superseded:    {403, "insufficient_scope", insufficientScope, "the grant was renewed: use the newer token"},
	grants.ToolChanged:   {403, "insufficient_scope", insufficientScope, "the tool is not the one that was granted: " + askAgain},
	grants.PolicyChanged: {403, "insufficient_scope", insufficientScope, "the policy, or the manifest, of today does not permit the grant"},

	grants.WrongTool:        {403, "insufficient_scope", insufficientScope, "the token's grants are for other tools: " + askAgain},
	grants.ConstraintBroken: {403, "access_denied", "", "the arguments break the grant's constraints"},
	grants.BudgetSpent:      {403, "access_denied", "", "what is left of the grant's budget does not cover this call"},
	grants.Policy:           {403, "access_denied", "", "policy does not permit this call"},
	grants.PolicyError:      {403, "access_denied", "", "a policy could not be evaluated, so the answer is no; tell the operator the decision_id"},
	grants.Manifest:         {403, "insufficient_scope", insufficientScope, "the manifest of the task's kind does not cover the grant"},

	grants.UnknownTask: {403, "insufficient_scope", insufficientScope, "no such task"},
	grants.BadTTL:      {400, "invalid_request", "", "that time cannot be granted"},
	grants.BadRequest:  {400, "invalid_request", "", "the request does not fit together"},
	grants.Conflict:    {400, "invalid_request", "", "the state has moved: try again"},

	grants.Limit:        {429, "temporarily_unavailable", "", "a limit is reached: try again later"},
	grants.NotFresh:     {503, "temporarily_unavailable", "", "the view of grants is older than it may be: try again"},
	grants.CannotRecord: {503, "temporarily_unavailable", "", "decisions cannot be recorded, so the answer is no"},
	grants.Undecided:    {503, "temporarily_unavailable", "", "no decision could be made, so the answer is no; tell the operator the decision_id"},
}
