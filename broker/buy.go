package broker

import (
	"context"
	"strconv"

	"github.com/toolgrant/toolgrant/grants"
	"github.com/toolgrant/toolgrant/identity"
	"github.com/toolgrant/toolgrant/strictjson"
	"github.com/toolgrant/toolgrant/token"
)

// grantsRequest is the body of POST /v1/grants.
type grantsRequest struct {
	Task   grants.ID `json:"task"`
	Agent  *string   `json:"agent"` // ALIAS/SUBJECT; absent: the caller
	Grants []wish    `json:"grants"`
}

// grantsAnswer is its answer: one token for each server that was named, in that
// order.
type grantsAnswer struct {
	Tokens []tokenAnswer `json:"tokens"`
}

// buy handles POST /v1/grants: grants of one task, for tools of any servers,
// for the caller or for another agent of a task that is the caller's.
func (b *Broker) buy(ctx context.Context, r *request) reply {
	if why, detail := b.identify(r); why != grants.None {
		return refused(why, detail)
	}
	if why, detail := b.mayBuy(r); why != grants.None {
		return refused(why, detail)
	}
	o, rep := b.readOrder(r)
	if rep.why != grants.None {
		return rep
	}
	return b.issue(ctx, r, o, func(tokens []tokenAnswer) any { return grantsAnswer{tokens} })
}

func (b *Broker) readOrder(r *request) (*order, reply) {
	if why, detail := r.mustBeJSON(); why != grants.None {
		return nil, refused(why, detail)
	}
	var req grantsRequest
	if err := strictjson.Unmarshal(r.body, strictjson.Limits{}, &req); err != nil {
		return nil, refused(grants.Malformed, "body: "+err.Error())
	}
	o := &order{task: req.Task, agent: r.who.Principal}
	if req.Agent != nil {
		agent, ok := identity.ParseAgent(*req.Agent)
		if !ok {
			return nil, refused(grants.Malformed, `"agent": write ISSUER-ALIAS/SUBJECT`)
		}
		// What the caller's token says of groups is of the caller, and nothing is
		// known of another's.
		if !is(agent, o.agent) {
			o.agent = agent
		}
	}
	switch {
	case o.task == "":
		return nil, refused(grants.BadRequest, `"task" is missing: start one, and send its id`)
	case len(req.Grants) == 0 || len(req.Grants) > token.MaxDetails:
		return nil, refused(grants.BadRequest, `"grants" holds `+tooMany+" objects")
	}
	for i, w := range req.Grants {
		a, rep := b.read(w, "grants["+strconv.Itoa(i)+"]")
		if rep.why != grants.None {
			return nil, rep
		}
		o.asks = append(o.asks, a)
	}
	return o, eachOnce(o.asks)
}
