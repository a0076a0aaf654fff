package cedar

import (
	"fmt"
	"slices"
	"strings"

	cedargo "github.com/cedar-policy/cedar-go"
	cedarast "github.com/cedar-policy/cedar-go/ast"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
	"github.com/cedar-policy/cedar-go/x/exp/eval"

	"github.com/toolgrant/toolgrant/grants"
	"github.com/toolgrant/toolgrant/strictjson"
)

// Explanation is a decision, and how it came about.
type Explanation struct {
	Question string // who asks for what
	Decision grants.Decision
	Policies []Examined // those that are about the action and the resource, in the order of the files
	Differ   []string   // for a denial: what would have to be otherwise; policies, nearest first
}

// Examined is a policy that was looked at.
type Examined struct {
	ID, At     string  // At is where it begins, FILE:LINE:COLUMN
	Forbid     bool    // it is a forbid, or else a permit
	Scope      Part    // what its scope says of the principal
	Conditions []Part  // its "when" split at &&, its "unless" at ||, in Cedar's order
	Holds      Verdict // True: it takes part in the decision
}

// Part is one of the things that must all hold for a policy to take part.
type Part struct {
	Text   string // in Cedar; what stands in an "unless" is written not (…)
	Holds  Verdict
	Error  string // with Errs: why
	Values []Value
}

// Verdict is what came of something in a policy.
type Verdict string

// Verdicts. Errs is of what Cedar comes to: the decision is then no. Unreached is of
// what Cedar does not come to, because something before it does not hold, and
// what has no value therefore.
const (
	True      Verdict = "true"
	False     Verdict = "false"
	Errs      Verdict = "error"
	Unreached Verdict = "unreached"
)

// Value is a member of the context, or of the principal, that a Part names.
type Value struct {
	Path   string // as the policy has it: context.ttl
	Type   string // "absent" if it is not there
	Text   string // in Cedar; of arguments and parameters "", but by WithValues
	secret string
}

// Explain decides a question and says why it is decided so. Of the call's
// arguments, what a retry brings, and the task's parameters only types are told;
// see WithValues. The error is of an Input that is no question.
func (s *Set) Explain(in grants.Input) (Explanation, error) {
	d := s.decide(&in)
	d.Revision = s.revision
	if d.Reason == grants.Undecided {
		return Explanation{}, fmt.Errorf("explaining %s: the parts of the input do not make a question that a door would ask", in.Action)
	}
	var q question
	if why := s.ask(&in, &q); why != grants.None {
		what := in.Tool + in.Server
		if what == "" && in.Task != nil {
			what = "tasks of the kind " + in.Task.Kind
		}
		return Explanation{Question: fmt.Sprintf("%s asks for %s on %s", in.Principal.ID(), in.Action, what), Decision: d, Differ: []string{unasked(why)}}, nil
	}
	return s.explain(&q, d), nil
}

// ExplainExample does the same for a question that a person wrote, in the form
// that ExampleInput gives. The error is that of DecideExample.
func (s *Set) ExplainExample(doc []byte) (Explanation, error) {
	d, err := s.DecideExample(doc)
	if err != nil {
		return Explanation{}, err
	}
	var text exampleText
	if err := strictjson.Unmarshal(doc, strictjson.Limits{}, &text); err != nil {
		return Explanation{}, fmt.Errorf("input: %w", err)
	}
	q, err := s.read(&text)
	if err != nil {
		return Explanation{}, fmt.Errorf("input: %w", err)
	}
	if d.Reason != grants.None && d.Reason != grants.Policy && d.Reason != grants.PolicyError {
		return Explanation{Question: q.text(), Decision: d, Differ: []string{unasked(d.Reason)}}, nil
	}
	return s.explain(q, d), nil
}

// unasked says what must differ where no policy was looked at.
func unasked(why grants.Reason) string {
	switch why {
	case grants.Manifest:
		return "no policy was looked at: the manifest of the task's kind does not cover this; toolgrant manifest explain shows what it covers"
	case grants.UnknownTool:
		return "no policy was looked at: the catalogue has no such tool or MCP server"
	case grants.Unrepresentable:
		return "no policy was looked at: an argument or parameter has no exact Cedar value (a number with more than four decimals, say), or is of another type than declared"
	}
	return "no policy was looked at: " + why.String()
}

func (s *Set) explain(q *question, d grants.Decision) Explanation {
	e := Explanation{Question: q.text(), Decision: d}
	for _, policy := range slices.SortedFunc(q.route.policies(), byPlace) {
		if tree := (*ast.Policy)(policy.AST()); mayMatch(tree.Resource, q.request.Resource, s.base) {
			e.Policies = append(e.Policies, q.examine(policy, tree))
		}
	}
	e.Differ = e.differ()
	return e
}

func (q *question) text() string {
	r := &q.request
	return fmt.Sprintf("%s asks for %s on %s", r.Principal, r.Action, r.Resource)
}

// policies gives those of the route.
func (r route) policies() func(func(*cedargo.Policy) bool) {
	return func(yield func(*cedargo.Policy) bool) {
		for _, policy := range r.All() {
			if !yield(policy) {
				return
			}
		}
	}
}

// examine looks at one policy about the action and the resource.
func (q *question) examine(policy *cedargo.Policy, tree *ast.Policy) Examined {
	at := policy.Position()
	x := Examined{
		ID: string(policy.Annotations()["id"]), At: fmt.Sprintf("%s:%d:%d", at.Filename, at.Line, at.Column),
		Forbid: tree.Effect == ast.EffectForbid, Scope: Part{Text: principalText(tree)}, Holds: True,
	}
	take := func(part *Part, v cedargo.Value, err error, negated bool) {
		holds, isBool := v.(cedargo.Boolean)
		switch {
		case err == nil && isBool && bool(holds) != negated:
			part.Holds = True
			return
		case err == nil && isBool:
			part.Holds = False
		case x.Holds == True: // Cedar comes to it
			part.Holds, part.Error = Errs, "it has no truth value"
			if err != nil {
				part.Error = err.Error()
			}
		default:
			part.Holds = Unreached
		}
		if x.Holds == True {
			x.Holds = part.Holds
		}
	}
	scope := *tree
	scope.Conditions = nil
	v, err := eval.Eval(eval.PolicyToNode(&scope).AsIsNode(), q.env())
	take(&x.Scope, v, err, false)
	for _, c := range conjuncts(tree) {
		part := Part{Text: c.String(), Values: q.values(c.node)}
		v, err := eval.Eval(c.node, q.env())
		take(&part, v, err, c.negated)
		if part.Error != "" && slices.ContainsFunc(part.Values, func(v Value) bool { return v.secret != "" }) {
			part.Error = "it cannot be evaluated with these values" // Cedar's own words have them
		}
		x.Conditions = append(x.Conditions, part)
	}
	return x
}

func (q *question) env() eval.Env {
	r := &q.request
	return eval.Env{Entities: &q.entities, Principal: r.Principal, Action: r.Action, Resource: r.Resource, Context: r.Context}
}

// principalText writes what a policy's scope says of the principal.
func principalText(p *ast.Policy) string {
	scope := ast.Policy{Effect: p.Effect, Principal: p.Principal, Action: ast.ScopeTypeAll{}, Resource: ast.ScopeTypeAll{}}
	text := string((*cedarast.Policy)(&scope).MarshalCedar())
	_, text, _ = strings.Cut(text, "(")
	text = text[:max(0, strings.LastIndex(text, "action"))] // what follows has no names in it
	return strings.Trim(text, " ,\n")
}
