package replay

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/toolgrant/toolgrant/catalog"
	"github.com/toolgrant/toolgrant/grants"
)

// asked is one question as its door takes the answer. Of a call under a grant, the
// questions about the grant are part of it: the door puts them with it when
// another policy revision permitted the grant, and one no to them is the answer.
type asked struct {
	q   *Question
	was grants.Decision // with PolicyChanged where the grant was refused
}

// inside reports whether the question is about what is done under a grant.
func (q *Question) inside() bool {
	in := &q.Input
	return in.Grant != nil && in.Task != nil &&
		(strings.HasPrefix(in.Action, grants.ActionCall) || strings.HasPrefix(in.Action, grants.ActionMCP))
}

// about reports whether the question is one of the grant's own (Grant.Asks).
func (q *Question) about(grant grants.ID) bool {
	in := &q.Input
	return in.Grant != nil && in.Grant.ID == grant && (in.Action == grants.ActionGrant || in.Action == grants.ActionAskFor)
}

// casesOf takes the lines of one decision, in their order. whole is false if one
// is missing: the door asks first about the call alone, and then, if the grant is
// of another revision, once more with the questions about the grant. The first
// line is then not what counted, and is followed by the one that is.
func casesOf(lines []Line) (cases []asked, whole bool) {
	whole = true
	for i := range lines {
		some, half := lineCases(lines[i].Questions)
		cases = append(cases, some...)
		if half != nil && (i+1 == len(lines) || !completes(lines[i+1].Questions, half)) {
			whole = false
		}
	}
	return cases, whole
}

// lineCases takes the questions of one line. half is one that the door asks again.
func lineCases(qs []Question) (cases []asked, half *Question) {
	for i := range qs {
		q := &qs[i]
		switch {
		case q.inside():
			var own []grants.Decision
			for j := range qs {
				if qs[j].about(q.Input.Grant.ID) {
					own = append(own, qs[j].Decision)
				}
			}
			if len(own) == 0 && q.Decision.Revision != q.Input.Grant.Policy {
				half = q
				continue
			}
			cases = append(cases, asked{q, settle(q.Decision, own)})
		case !slices.ContainsFunc(qs, func(other Question) bool { return other.inside() && q.about(other.Input.Grant.ID) }):
			cases = append(cases, asked{q, q.Decision})
		}
	}
	return cases, half
}

// completes reports whether the questions are those that the door puts after half.
func completes(qs []Question, half *Question) bool {
	last := &qs[len(qs)-1]
	return len(qs) > 1 && last.inside() && last.Input.Action == half.Input.Action && last.Input.Grant.ID == half.Input.Grant.ID &&
		qs[0].about(half.Input.Grant.ID)
}

// settle is what a door makes of an answer and of those about the grant.
func settle(d grants.Decision, about []grants.Decision) grants.Decision {
	no := grants.Decision{Reason: grants.PolicyChanged, Revision: d.Revision}
	refused := false
	for _, a := range about {
		if a.Refusal() != grants.None {
			no.Policies, refused = append(no.Policies, a.Policies...), true
		}
	}
	if !refused {
		return d
	}
	slices.Sort(no.Policies)
	no.Policies = slices.Compact(no.Policies)
	return no
}

// again puts the question to decide, with the instant that it was asked at. why is
// what keeps it from being decided; "": nothing does. The error is the Decider's.
func (a *asked) again(ctx context.Context, decide grants.Decider, c *catalog.Catalog) (now grants.Decision, why Why, err error) {
	in, asks := a.q.Input, []grants.Input(nil)
	if a.q.inside() {
		asks = in.Grant.Asks(in.Task, in.At)
	}
	if !a.seen(c) {
		// No more can be said than what does not hang on the arguments: the grant
		// is asked about without them, and its no comes first.
		if len(asks) == 0 {
			return now, Redacted, nil
		}
		ds, err := put(ctx, decide, asks)
		if err != nil {
			return now, "", err
		}
		if now = settle(grants.Decision{Revision: ds[0].Revision}, ds); now.Reason != grants.PolicyChanged || ds[0].Revision == in.Grant.Policy {
			return now, Redacted, nil
		}
		return now, undecided(ds, a.was), nil
	}
	ds, err := put(ctx, decide, append([]grants.Input{in}, asks...))
	if err != nil {
		return now, "", err
	}
	if a.q.inside() && ds[0].Revision != in.Grant.Policy {
		return settle(ds[0], ds[1:]), undecided(ds, a.was), nil
	}
	return ds[0], undecided(ds[:1], a.was), nil
}

// seen reports whether all that the Decider may see of the arguments is there.
func (a *asked) seen(c *catalog.Catalog) bool {
	if len(a.q.Redacted) > 0 {
		return false
	}
	if len(a.q.Opaque) == 0 {
		return true
	}
	if c == nil {
		return false
	}
	t, known := c.Tool(a.q.Input.Tool)
	if !known {
		return true // and the Decider will say that there is no such tool
	}
	return !slices.ContainsFunc(a.q.Opaque, func(gone string) bool {
		return !slices.ContainsFunc(t.Opaque, func(o string) bool { return gone == o || strings.HasPrefix(gone, o+"/") })
	})
}

// undecided is why answers are none: a tool that is gone, or parts that make no
// question any more.
func undecided(ds []grants.Decision, was grants.Decision) Why {
	for _, d := range ds {
		switch d.Reason {
		case was.Reason:
		case grants.UnknownTool:
			return ToolGone
		case grants.Undecided:
			return Undecidable
		}
	}
	return ""
}

// put asks, and takes nothing but one full answer each, of one revision.
func put(ctx context.Context, decide grants.Decider, in []grants.Input) ([]grants.Decision, error) {
	ds, err := decide(ctx, in)
	if err == nil && len(ds) != len(in) {
		err = fmt.Errorf("%d decisions for %d questions", len(ds), len(in))
	}
	if err == nil {
		err = ctx.Err()
	}
	return ds, err
}
